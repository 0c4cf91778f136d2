package ledger_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

// BenchmarkReserveUpdate is a lease reserved and settled: two transactions, on a ledger with a history.
func BenchmarkReserveUpdate(b *testing.B) {
	for _, on := range []backend{onSQLite, onPostgres} {
		b.Run(on.name, func(b *testing.B) { benchmarkReserveUpdate(b, on) })
	}
}

func benchmarkReserveUpdate(b *testing.B, on backend) {
	for _, goroutines := range []int{1, 16} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			db := open(b, on.fresh(b))
			ctx := b.Context()
			both := func() error {
				res, err := db.Reserve(ctx, intent("a", 1), noon, periods, allow)
				if err != nil {
					return err
				}
				l := res.Lease
				l.State, l.Reserved, l.Cost, l.EndedAt = lease.Ended, 0, 1, noon
				_, err = db.Update(ctx, l, "settled")
				return err
			}
			b.SetParallelism((goroutines + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			if goroutines == 1 {
				for b.Loop() {
					if err := both(); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := both(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkOpen is a start of the product on a ledger that is there.
func BenchmarkOpen(b *testing.B) {
	for _, on := range []backend{onSQLite, onPostgres} {
		b.Run(on.name, func(b *testing.B) {
			address := on.fresh(b)
			db := open(b, address)
			for range 200 {
				if _, err := db.Reserve(b.Context(), intent("a", 1), noon, periods, allow); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				db, err := ledger.Open(b.Context(), address, ledger.Options{})
				if err == nil {
					err = db.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkUsage is what every quote and every look at the budget does.
func BenchmarkUsage(b *testing.B) {
	for _, on := range []backend{onSQLite, onPostgres} {
		b.Run(on.name, func(b *testing.B) {
			db := open(b, on.fresh(b))
			for range 200 {
				if _, err := db.Reserve(b.Context(), intent("a", 1), noon, periods, allow); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if _, err := db.Usage(b.Context(), "a", noon, periods); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
