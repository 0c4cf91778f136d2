package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// open opens the ledger at path with a clock that stands still.
func open(t testing.TB, path string) *ledger.DB {
	t.Helper()
	db, err := ledger.Open(t.Context(), path, ledger.Options{Now: func() time.Time { return noon }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// closed makes a ledger with one live lease in a file and closes it.
func closed(t *testing.T) (path string, l lease.Lease) {
	t.Helper()
	return closedOn(t, onSQLite)
}

func closedOn(t *testing.T, b backend) (address string, l lease.Lease) {
	t.Helper()
	address = b.fresh(t)
	db, err := ledger.Open(t.Context(), address, ledger.Options{Now: func() time.Time { return noon }})
	require.NoError(t, err)
	l = reserve(t, db, intent("a", policy.Dollar))
	require.NoError(t, db.Close())
	return address, l
}

func TestOpenKeepsWhatIsThere(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address, l := closedOn(t, b)
		first, second := open(t, address), open(t, address)
		one, err := first.LedgerID(t.Context())
		require.NoError(t, err)
		two, err := second.LedgerID(t.Context())
		require.NoError(t, err)
		require.Equal(t, one, two)
		got, err := second.Get(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, l, got)

	})
}

func TestOpenNamesALedgerOnce(t *testing.T) {
	db, err := ledger.Open(t.Context(), fresh(t), ledger.Options{Rand: bytes.NewReader([]byte{0, 0, 0})})
	require.NoError(t, err)
	id, err := db.LedgerID(t.Context())
	require.NoError(t, errors.Join(err, db.Close()))
	require.Equal(t, "aaaa", id)

	path := fresh(t)
	_, err = ledger.Open(t.Context(), path, ledger.Options{Rand: bytes.NewReader(nil)})
	require.ErrorContains(t, err, "name the ledger")
	left, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Equal(t, []string{path + ".lock"}, left, "what was half made is gone")
}

func TestOpenAfterACrashWhileMaking(t *testing.T) {
	path := fresh(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path+".new", []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(path+".new-journal", []byte("half"), 0o600))
	reserve(t, open(t, path), intent("a", 1))
}

func TestOpenOddPaths(t *testing.T) {
	for _, name := range []string{"a b.db", "what?mode=ro.db", "50%.db", "%41#x&_pragma=x.db", "ünï.db", ":memory:"} {
		if runtime.GOOS == "windows" && strings.ContainsAny(name, "?:") {
			continue
		}
		path := filepath.Join(t.TempDir(), name)
		db := open(t, path)
		reserve(t, db, intent("a", 1))
		_, err := os.Stat(path)
		require.NoError(t, err)
	}
}

func TestOpenThroughALink(t *testing.T) {
	path, l := closed(t)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	db := open(t, link)
	_, err := db.Get(t.Context(), l.ID)
	require.NoError(t, err)
	_, err = os.Stat(link + ".lock")
	require.ErrorIs(t, err, os.ErrNotExist, "all use the lock beside the ledger itself")
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no modes")
	}
	path, _ := closed(t)
	require.NoError(t, os.Chmod(path, 0o644))
	db := open(t, path)
	reserve(t, db, intent("a", 1))
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), suffix)
	}
	info, err := os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

// Whatever is at the path and is no sound ledger is refused, and stays as it is.
func TestOpenRefuses(t *testing.T) {
	write := func(content []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, content, 0o600)) }
	}
	change := func(f func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			write(f(b))(t, path)
		}
	}
	for _, c := range []struct {
		name string
		do   func(*testing.T, string) // to a sound ledger
		want error
	}{
		{"empty", write(nil), ledger.ErrCorrupt},
		{"a little text", write([]byte("hello")), ledger.ErrCorrupt},
		{"much text", write(bytes.Repeat([]byte("hello, world\n"), 5000)), ledger.ErrCorrupt},
		{"first page overwritten", change(func(b []byte) []byte { clear(b[:4096]); return b }), ledger.ErrCorrupt},
		{"all but the first page overwritten", change(func(b []byte) []byte { copy(b[4096:], bytes.Repeat([]byte{0x5a}, len(b))); return b }), ledger.ErrCorrupt},
		{"cut in half", change(func(b []byte) []byte { return b[:len(b)/8192*4096] }), ledger.ErrCorrupt},
		{"cut to one page", change(func(b []byte) []byte { return b[:4096] }), ledger.ErrCorrupt},
		{"an amount that cannot be", func(t *testing.T, path string) {
			onSQLite.raw(t, path, "PRAGMA ignore_check_constraints = 1; UPDATE leases SET reserved = -1000000")
		}, ledger.ErrCorrupt},
		{"another program's database", func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			onSQLite.raw(t, path, "CREATE TABLE x (y); INSERT INTO x VALUES (1)")
		}, ledger.ErrNotLedger},
		{"a newer version's", func(t *testing.T, path string) {
			onSQLite.raw(t, path, fmt.Sprintf("PRAGMA user_version = %d", ledger.SchemaVersion+1))
		}, ledger.ErrNewerSchema},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := closed(t)
			c.do(t, path)
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			for range 2 {
				_, err = ledger.Open(t.Context(), path, ledger.Options{})
				require.ErrorIs(t, err, c.want)
				require.ErrorContains(t, err, path)
			}
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(before, after), "the file was changed")
		})
	}
	t.Run("a directory", func(t *testing.T) {
		_, err := ledger.Open(t.Context(), t.TempDir(), ledger.Options{})
		require.ErrorIs(t, err, ledger.ErrNotLedger)
	})
	t.Run("gone, but its journal is there", func(t *testing.T) {
		path, _ := closed(t)
		require.NoError(t, os.Rename(path, path+"-wal"))
		_, err := ledger.Open(t.Context(), path, ledger.Options{})
		require.ErrorIs(t, err, ledger.ErrCorrupt)
		_, err = os.Stat(path)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
	t.Run("no path", func(t *testing.T) {
		_, err := ledger.Open(t.Context(), "", ledger.Options{})
		require.ErrorContains(t, err, "no path")
	})
	t.Run("a directory that cannot be made", func(t *testing.T) {
		path, _ := closed(t)
		_, err := ledger.Open(t.Context(), filepath.Join(path, "ledger.db"), ledger.Options{})
		require.ErrorContains(t, err, "not a directory")
	})
	t.Run("a context that is done", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		path := fresh(t)
		_, err := ledger.Open(ctx, path, ledger.Options{})
		require.ErrorIs(t, err, context.Canceled)
		_, err = os.Stat(path)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestANewerVersionComesWhileWeRun(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address, l := closedOn(t, b)
		db := open(t, address)
		b.raw(t, address, b.newer)
		_, err := db.Update(t.Context(), l, "")
		require.ErrorIs(t, err, ledger.ErrNewerSchema)
		_, err = db.Reserve(t.Context(), intent("a", 1), noon, periods, allow)
		require.ErrorIs(t, err, ledger.ErrNewerSchema)
		got, err := db.Get(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, l, got, "nothing was written")
	})
}

func TestDamageWhileWeRun(t *testing.T) {
	path, l := closed(t)
	db := open(t, path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0x5a}, int(info.Size())-4096), 4096)
	require.NoError(t, errors.Join(err, f.Close()))
	_, err = db.Reserve(t.Context(), intent("a", 1), noon, periods, allow)
	require.ErrorIs(t, err, ledger.ErrCorrupt)
	_, err = db.Get(t.Context(), l.ID)
	require.ErrorIs(t, err, ledger.ErrCorrupt)
	require.NotErrorIs(t, err, lease.ErrNotFound, "what cannot be read is not gone")
	require.ErrorIs(t, db.Verify(t.Context()), ledger.ErrCorrupt)
}

func TestFullDisk(t *testing.T) {
	path := fresh(t)
	db := open(t, path)
	l := reserve(t, db, intent("a", policy.Dollar))
	require.NoError(t, db.LimitPages(t.Context(), 1)) // SQLite takes that as "no page more"
	big := intent("a", policy.Dollar)
	big.Purpose = strings.Repeat("x", 1<<20)
	_, err := db.Reserve(t.Context(), big, noon, periods, allow)
	require.ErrorIs(t, err, ledger.ErrFull)
	_, err = db.Update(t.Context(), l, strings.Repeat("x", 1<<20))
	require.ErrorIs(t, err, ledger.ErrFull)
	u, err := db.Usage(t.Context(), "a", noon, periods)
	require.NoError(t, err)
	require.Equal(t, policy.Dollar, u.Account.Lifetime, "nothing was written")
	require.NoError(t, db.Verify(t.Context()))
	require.NoError(t, db.LimitPages(t.Context(), 1<<20))
	end(t, db, l, policy.Dollar, noon)
	reserve(t, db, big)
	require.NoError(t, db.Verify(t.Context()))
}

// The fixture was written by version 1 itself.
func TestMigrationFromVersion1(t *testing.T) {
	script, err := os.ReadFile("testdata/v1.sql")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "ledger.db")
	onSQLite.raw(t, path, string(script))
	db := open(t, path)
	require.NoError(t, db.Verify(t.Context()))
	id, err := db.LedgerID(t.Context())
	require.NoError(t, err)
	require.Equal(t, "aeba", id)
	u, err := db.Usage(t.Context(), "alice", noon, periods)
	require.NoError(t, err)
	require.Equal(t, 6_290_000, int(u.Principal.Lifetime))
	b, err := db.ByKey(t.Context(), "alice", "train")
	require.NoError(t, err)
	require.Equal(t, "trains", b.Purpose)
	a, err := db.Get(t.Context(), "aaaaaaaaaaaa")
	require.NoError(t, err)
	end(t, db, a, 1, noon)
	require.NoError(t, db.Correct(t.Context(), b.ID, 10_000, noon, "invoice"))
	require.NoError(t, db.Verify(t.Context()))
	u, err = db.Usage(t.Context(), "alice", noon, periods)
	require.NoError(t, err)
	require.Equal(t, 1_300_001, int(u.Principal.Lifetime))
}

// Version 3 is version 4 without the columns that came with that.
func TestMigrationFromVersion3(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address, l := closedOn(t, b)
		mark := "PRAGMA user_version = 3"
		if b.name == onPostgres.name {
			mark = "UPDATE meta SET value = '3' WHERE key = 'schema_version'"
		}
		script, err := os.ReadFile("migrations/4.sql")
		require.NoError(t, err)
		added := regexp.MustCompile(`ADD COLUMN (\w+)`).FindAllStringSubmatch(string(script), -1)
		require.NotEmpty(t, added)
		for _, column := range added {
			b.raw(t, address, "ALTER TABLE leases DROP COLUMN "+column[1])
		}
		b.raw(t, address, mark)
		db := open(t, address)
		got, err := db.Get(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, l, got)
		require.NoError(t, db.Verify(t.Context()), "what was written before has the same digests")
		got.NextHostKey, got.HostKeyFrom = "ssh-ed25519 AAAA", lease.HostKeyMade
		_, err = db.Update(t.Context(), got, "a key")
		require.NoError(t, err)
		again, err := db.Get(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, []string{got.NextHostKey, got.HostKeyFrom}, []string{again.NextHostKey, again.HostKeyFrom})
		require.NoError(t, db.Verify(t.Context()))
	})
}

func TestMigrationThatFailsChangesNothing(t *testing.T) {
	script, err := os.ReadFile("testdata/v1.sql")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "ledger.db")
	onSQLite.raw(t, path, string(script)+"CREATE TABLE events_corrections (in_the_way);")
	_, err = ledger.Open(t.Context(), path, ledger.Options{})
	require.ErrorContains(t, err, "migrate to schema version 2")
	onSQLite.raw(t, path, "DROP TABLE events_corrections")
	require.NoError(t, open(t, path).Verify(t.Context()))
}

func TestWaitingForTheTurn(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address, l := closedOn(t, b)
		db, err := ledger.Open(t.Context(), address, ledger.Options{BusyTimeout: 50 * time.Millisecond})
		require.NoError(t, err)
		patient := open(t, address)
		release := b.hold(t, address)

		_, err = db.Update(t.Context(), l, "")
		require.ErrorIs(t, err, ledger.ErrBusy)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err = patient.Update(ctx, l, "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = db.Get(t.Context(), l.ID)
		require.NoError(t, err, "readers do not wait")

		done := make(chan error)
		go func() { _, err := patient.Update(t.Context(), l, ""); done <- err }()
		select {
		case err := <-done:
			require.Fail(t, "it did not wait", err)
		case <-time.After(20 * time.Millisecond):
		}
		release()
		require.NoError(t, <-done)
		require.NoError(t, db.Close())
	})
}

func TestClosed(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address, l := closedOn(t, b)
		db, err := ledger.Open(t.Context(), address, ledger.Options{})
		require.NoError(t, err)
		require.NoError(t, db.Close())
		require.NoError(t, db.Close())
		_, err = db.Get(t.Context(), l.ID)
		require.Error(t, err)
		_, err = db.Update(t.Context(), l, "")
		require.Error(t, err)
	})
}
