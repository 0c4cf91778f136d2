package ledger_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
)

// open opens the ledger at path with a clock that stands still.
func open(t testing.TB, path string) *ledger.DB {
	t.Helper()
	db, err := ledger.Open(t.Context(), path, ledger.Options{Now: func() time.Time { return noon }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func fresh(t testing.TB) string { return filepath.Join(t.TempDir(), "state", "ledger.db") }

func TestStoreOnSQLite(t *testing.T) {
	testStore(t, func(t *testing.T) lease.Store {
		db := open(t, fresh(t))
		t.Cleanup(func() { require.NoError(t, db.Verify(context.WithoutCancel(t.Context()))) })
		return db
	})
}
