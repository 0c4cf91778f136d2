package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gpulease/gpulease/remote"
)

// paging reads the whole output of a job in pages, and tells the most memory that this process has had meanwhile.
func paging(ctx context.Context, s settings, m *machine) error {
	pool := remote.NewPool(remote.Config{})
	defer func() { _ = pool.Close() }()
	const id = "bench-page"
	job, _, _, err := pool.Run(ctx, m.target, id, remote.Command{Shell: fmt.Sprintf("head -c %d /dev/zero", s.page)}, 5*time.Minute, 0, 0)
	if err != nil {
		return err
	}
	if job.StdoutBytes != s.page {
		return fmt.Errorf("job is %s with %d bytes", job.State, job.StdoutBytes)
	}
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak begins again
	begun, pages := time.Now(), 0
	for offset := int64(0); offset < s.page; pages++ {
		page, err := pool.Page(ctx, m.target, id, remote.Stdout, offset, 1<<20, 0)
		if err != nil {
			return err
		}
		if len(page.Data) == 0 {
			return fmt.Errorf("nothing at %d", offset)
		}
		offset = page.NextOffset
	}
	took := time.Since(begun)
	fmt.Printf("%-22s    0 ms  %d MB in %d pages: %.1f s, %.0f MB/s, most memory of this process %s\n", "paging",
		s.page/1_000_000, pages, took.Seconds(), float64(s.page)/1e6/took.Seconds(), peak(os.Getpid()))
	return nil
}
