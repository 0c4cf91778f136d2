package ledger_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/ledger/postgrestest"
)

// backend is a database that a ledger can be in, and what tests have to do differently with it.
type backend struct {
	name  string
	fresh func(testing.TB) string                             // the address of a ledger that is not there yet
	raw   func(t testing.TB, address, script string)          // runs SQL behind the ledger's back
	try   func(t testing.TB, address, script string) error    // the same
	hold  func(t testing.TB, address string) (release func()) // takes the turn to write as another process would
	// unlock removes what keeps the trail from being edited, as somebody with a database shell would.
	unlock string
	zeroes string // 32 of them
	newer  string // sets the schema version to one more than ours
}

var onSQLite = backend{
	name: "SQLite", fresh: fresh, hold: hold, try: try,
	raw: func(t testing.TB, path, script string) { require.NoError(t, try(t, path, script)) },
	unlock: `PRAGMA foreign_keys = 0; DROP TRIGGER events_unchanged; DROP TRIGGER events_kept; DROP TRIGGER events_in_order; DROP TRIGGER decisions_unchanged;
		DROP TRIGGER decisions_kept; DROP TRIGGER decisions_in_order; DROP TRIGGER leases_kept; DROP TRIGGER leases_final;`,
	zeroes: "zeroblob(32)", newer: fmt.Sprintf("PRAGMA user_version = %d", ledger.SchemaVersion+1),
}

var onPostgres = backend{
	name: "PostgreSQL", fresh: freshOnServer, hold: holdOnServer, try: tryOnServer,
	raw:    func(t testing.TB, address, script string) { require.NoError(t, tryOnServer(t, address, script)) },
	unlock: "ALTER TABLE events DISABLE TRIGGER ALL; ALTER TABLE decisions DISABLE TRIGGER ALL; ALTER TABLE leases DISABLE TRIGGER ALL;",
	zeroes: "decode(repeat('00', 32), 'hex')", newer: fmt.Sprintf("UPDATE meta SET value = '%d' WHERE key = 'schema_version'", ledger.SchemaVersion+1),
}

// onBoth runs a test on SQLite and on PostgreSQL.
func onBoth(t *testing.T, run func(*testing.T, backend)) {
	for _, b := range []backend{onSQLite, onPostgres} {
		t.Run(b.name, func(t *testing.T) { run(t, b) })
	}
}

func TestStore(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		testStore(t, func(t *testing.T) lease.Store {
			db := open(t, b.fresh(t))
			t.Cleanup(func() { require.NoError(t, db.Verify(context.WithoutCancel(t.Context()))) })
			return db
		})
	})
}

func fresh(t testing.TB) string { return filepath.Join(t.TempDir(), "state", "ledger.db") }

func freshOnServer(t testing.TB) string { return postgrestest.Shared(t).NewAddress(t) }

func try(t testing.TB, path, script string) error {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec(script)
	return errors.Join(err, db.Close())
}

func connect(t testing.TB, address string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.WithoutCancel(t.Context()))) })
	return c
}

func tryOnServer(t testing.TB, address, script string) error {
	t.Helper()
	c, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	_, err = c.Exec(t.Context(), script)
	return errors.Join(err, c.Close(t.Context()))
}

func hold(t testing.TB, path string) (release func()) {
	t.Helper()
	other := flock.New(path + ".lock")
	ok, err := other.TryLock()
	require.NoError(t, err)
	require.True(t, ok)
	return func() { require.NoError(t, other.Unlock()) }
}

func holdOnServer(t testing.TB, address string) (release func()) {
	t.Helper()
	c := connect(t, address)
	_, err := c.Exec(t.Context(), fmt.Sprintf("BEGIN; SELECT pg_advisory_xact_lock(%d)", ledger.TurnKey(schemaOf(t, address))))
	require.NoError(t, err)
	return func() {
		_, err := c.Exec(context.WithoutCancel(t.Context()), "ROLLBACK")
		require.NoError(t, err)
	}
}

func schemaOf(t testing.TB, address string) string {
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u.Query().Get("search_path")
}
