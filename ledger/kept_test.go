package ledger_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

// Statements that are kept hold no old state of the file open: a log that nobody can fold in would grow for ever. They go on
// after the tables have changed under them.
func TestKeptStatementsHoldNothing(t *testing.T) {
	path, l := closed(t)
	db, err := ledger.Open(t.Context(), path, ledger.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	other, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer other.Close()
	for i := range 5 {
		got, err := db.Get(t.Context(), l.ID)
		require.NoError(t, err)
		_, err = db.Get(t.Context(), "zzzzzzzzzzzz")
		require.ErrorIs(t, err, lease.ErrNotFound)
		_, err = db.Usage(t.Context(), "a", noon, periods)
		require.NoError(t, err)
		got.Detail = fmt.Sprint("look ", i)
		l, err = db.Update(t.Context(), got, "")
		require.NoError(t, err)
		_, err = db.Update(t.Context(), got, "of an older version")
		require.Error(t, err)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = db.Live(over)
		require.Error(t, err)

		var busy, log, done int
		require.NoError(t, other.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done))
		require.Zero(t, busy, "somebody holds the file")
		_, err = other.Exec(fmt.Sprintf("CREATE INDEX x%d ON leases (purpose); ANALYZE", i))
		require.NoError(t, err)
	}
	require.NoError(t, db.Verify(t.Context()))
}
