package ledger_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// A process that is suspended in the middle of a write keeps the turn and SQLite's own lock. Who wants to see what runs, or to stop
// it, has to get in all the same.
func TestOpenAndReadBesideASuspendedWriter(t *testing.T) {
	path, l := closed(t)
	defer hold(t, path)()
	other, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	other.SetMaxOpenConns(1)
	defer other.Close()
	_, err = other.Exec("BEGIN IMMEDIATE; UPDATE leases SET purpose = 'half written'")
	require.NoError(t, err)

	began := time.Now()
	db, err := ledger.Open(t.Context(), path, ledger.Options{BusyTimeout: 5 * time.Second})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	got, err := db.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, got)
	live, err := db.Live(t.Context())
	require.NoError(t, err)
	require.Len(t, live, 1)
	_, err = db.Usage(t.Context(), "a", noon, periods)
	require.NoError(t, err)
	require.NoError(t, db.Verify(t.Context()))
	require.Less(t, time.Since(began), 2*time.Second, "none of it waited")
}

func TestMakingALedgerWaitsForItsTurn(t *testing.T) {
	path := fresh(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	release := hold(t, path)
	_, err := ledger.Open(t.Context(), path, ledger.Options{BusyTimeout: 20 * time.Millisecond})
	require.ErrorIs(t, err, ledger.ErrBusy)
	_, err = os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	release()
	open(t, path)
}

func TestMigratingWaitsForItsTurn(t *testing.T) {
	script, err := os.ReadFile("testdata/v1.sql")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "ledger.db")
	onSQLite.raw(t, path, string(script))
	release := hold(t, path)
	_, err = ledger.Open(t.Context(), path, ledger.Options{BusyTimeout: 20 * time.Millisecond})
	require.ErrorIs(t, err, ledger.ErrBusy)
	release()
	open(t, path)
}

// SQLite goes on writing to a file that has been deleted, where no other process and no later one can see it. A lease that is launched
// into such a ledger would have no guard and no trace.
func TestNothingIsWrittenToALedgerThatIsNotThereAnyMore(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be removed")
	}
	for name, lose := range map[string]func(t *testing.T, path string) error{
		"its directory was deleted": func(t *testing.T, path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"it was deleted":            func(t *testing.T, path string) error { return os.Remove(path) },
		"it was moved away":         func(t *testing.T, path string) error { return os.Rename(path, path+".old") },
		"the directory was deleted and a new ledger made": func(t *testing.T, path string) error {
			err := os.RemoveAll(filepath.Dir(path))
			open(t, path)
			return err
		},
		"another one was moved there": func(t *testing.T, path string) error {
			other, _ := closed(t)
			return os.Rename(other, path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, l := closed(t)
			db, err := ledger.Open(t.Context(), path, ledger.Options{BusyTimeout: time.Second})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			require.NoError(t, db.Beat(t.Context(), "server 1", noon))
			require.NoError(t, lose(t, path))

			_, reserve := db.Reserve(t.Context(), intent("b", 1), noon, periods, allow)
			_, update := db.Update(t.Context(), l, "")
			_, take := db.Gate("a").Take(t.Context(), lambda.Slot{Name: lambda.SlotLaunches, Every: time.Second})
			for _, err := range []error{reserve, update, take, db.Beat(t.Context(), "server 1", noon), db.Correct(t.Context(), l.ID, 1, noon, "")} {
				require.ErrorIs(t, err, ledger.ErrReplaced)
			}
			got, err := db.Get(t.Context(), l.ID)
			require.NoError(t, err, "what was known can still be read, so that it can be ended")
			require.Equal(t, l.Version, got.Version)
		})
	}
}

// The file goes while a write is under way: it is not committed.
func TestLedgerThatGoesDuringAWrite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be removed")
	}
	path, _ := closed(t)
	db := open(t, path)
	_, err := db.Reserve(t.Context(), intent("b", 1), noon, periods, func(u policy.Usage) policy.Decision {
		require.NoError(t, os.Remove(path))
		return allow(u)
	})
	require.ErrorIs(t, err, ledger.ErrReplaced)
	live, err := db.Live(t.Context())
	require.NoError(t, err)
	require.Len(t, live, 1, "only the one from before")
}
