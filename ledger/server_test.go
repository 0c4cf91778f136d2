package ledger_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/ledger/postgrestest"
	"github.com/gpulease/gpulease/policy"
)

// on is address with options such as "sslmode" and their values in turn.
func on(t testing.TB, address string, options ...string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	q := u.Query()
	for i := 0; i < len(options); i += 2 {
		q.Set(options[i], options[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// impatient opens a ledger that waits two seconds for others and for its server.
func impatient(t testing.TB, address string) *ledger.DB {
	t.Helper()
	db, err := ledger.Open(t.Context(), address, ledger.Options{Now: func() time.Time { return noon }, BusyTimeout: 2 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// What is at the address and is no ledger of ours is refused, and stays as it is.
func TestOpenOnServerRefuses(t *testing.T) {
	s := postgrestest.Shared(t)
	refused := func(t *testing.T, address string, want error, text string) {
		t.Helper()
		for range 2 {
			_, err := ledger.Open(t.Context(), address, ledger.Options{})
			require.ErrorIs(t, err, want)
			require.ErrorContains(t, err, text)
		}
	}
	tables := func(t *testing.T, address string) (n int) {
		t.Helper()
		c := connect(t, address)
		require.NoError(t, c.QueryRow(t.Context(), "SELECT COUNT(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace").Scan(&n))
		return n
	}
	for name, script := range map[string]string{
		"another program's table of the same name": "CREATE TABLE leases (x int)",
		"another program's meta":                   "CREATE TABLE meta (x int)",
		"another program's meta, much like ours":   "CREATE TABLE meta (key text, value text); CREATE TABLE chains (name text, seq bigint); INSERT INTO meta VALUES ('schema_version', 'one')",
	} {
		t.Run(name, func(t *testing.T) {
			address := s.NewAddress(t)
			s.Exec(t, "SET search_path = "+schemaOf(t, address)+"; "+script)
			before := tables(t, address)
			refused(t, address, ledger.ErrNotLedger, "search_path")
			require.Equal(t, before, tables(t, address), "nothing was made")
		})
	}
	t.Run("a newer version's", func(t *testing.T) {
		address, _ := closedOn(t, onPostgres)
		onPostgres.raw(t, address, onPostgres.newer)
		refused(t, address, ledger.ErrNewerSchema, "version")
	})
	t.Run("no schema", func(t *testing.T) {
		refused(t, s.Address("search_path", "nowhere"), ledger.ErrUnwritable, "create one")
	})
	t.Run("a database in another encoding", func(t *testing.T) {
		s.Exec(t, "CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
		refused(t, strings.Replace(s.Address(), "/"+postgrestest.Database+"?", "/latin?", 1), ledger.ErrUnwritable, "UTF8")
	})
	t.Run("a database that may only be read", func(t *testing.T) {
		refused(t, on(t, s.NewAddress(t), "default_transaction_read_only", "on"), ledger.ErrUnwritable, "read only")
	})
	t.Run("a role without rights", func(t *testing.T) {
		address, _ := closedOn(t, onPostgres)
		s.Exec(t, "CREATE ROLE reader LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA "+schemaOf(t, address)+" TO reader")
		refused(t, s.AddressOf("reader", "x", "search_path", schemaOf(t, address)), ledger.ErrUnwritable, "permission denied")
		s.Exec(t, "GRANT SELECT ON ALL TABLES IN SCHEMA "+schemaOf(t, address)+" TO reader")
		refused(t, s.AddressOf("reader", "x", "search_path", schemaOf(t, address)), ledger.ErrUnwritable, "INSERT in leases")
		refused(t, s.AddressOf("reader", "x", "search_path", s.NewSchema(t)), ledger.ErrUnwritable, "no schema")
	})
	t.Run("a context that is done", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		address := s.NewAddress(t)
		_, err := ledger.Open(ctx, address, ledger.Options{})
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, tables(t, address))
	})
}

// A role that has no more than the documentation gives it can do all that is done every day, and cannot change the past.
func TestLeastRights(t *testing.T) {
	s := postgrestest.Shared(t)
	address, l := closedOn(t, onPostgres)
	schema := schemaOf(t, address)
	doc, err := os.ReadFile("../docs/ledger.md")
	require.NoError(t, err)
	_, grants, found := strings.Cut(string(doc), "<!-- grants -->")
	require.True(t, found)
	_, grants, _ = strings.Cut(grants, "```sql\n")
	grants, _, found = strings.Cut(grants, "```")
	require.True(t, found)
	s.Exec(t, "CREATE ROLE gpulease_agent LOGIN PASSWORD 'x'; "+strings.ReplaceAll(strings.ReplaceAll(grants, "SCHEMA gpulease ", "SCHEMA "+schema+" "), "gpulease.", schema+"."))
	agent := s.AddressOf("gpulease_agent", "x", "search_path", schema)

	db := open(t, agent)
	end(t, db, l, 1, noon)
	require.NoError(t, db.Correct(t.Context(), l.ID, 5, noon, "invoice"))
	reserve(t, db, intent("b", 1))
	require.NoError(t, db.Beat(t.Context(), "server 1", noon))
	require.NoError(t, db.Touch(t.Context(), l.ID, noon))
	testFreeze(t, db)
	_, err = db.Gate("a").Take(t.Context(), lambda.Slot{Name: lambda.SlotLaunches, Every: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.Sight(t.Context(), "acct", noon, []lease.Stranger{{Instance: "i-1", Price: 1}}))
	require.NoError(t, db.Sight(t.Context(), "acct", noon.Add(time.Minute), nil))
	require.NoError(t, db.Verify(t.Context()))
	leader := db.Leader()
	lead, err := leader.Try("acct")
	require.NoError(t, err)
	require.True(t, lead)
	require.NoError(t, leader.Close())
	for _, script := range []string{
		"UPDATE events SET note = ''", "DELETE FROM events", "TRUNCATE events CASCADE", "ALTER TABLE events DISABLE TRIGGER ALL", "DELETE FROM leases",
		"DROP TABLE events", "UPDATE meta SET value = 'zzzz'", "DELETE FROM chains", "CREATE TABLE t (x int)",
	} {
		err := tryOnServer(t, agent, script)
		require.Error(t, err, script)
		require.Regexp(t, "permission denied|must be owner", err.Error(), script)
	}
}

func TestReadOnlyMakesNothing(t *testing.T) {
	s := postgrestest.Shared(t)
	_, err := ledger.Open(t.Context(), s.NewAddress(t), ledger.Options{ReadOnly: true})
	require.ErrorIs(t, err, fs.ErrNotExist)
	address, l := closedOn(t, onPostgres)
	db, err := ledger.Open(t.Context(), address, ledger.Options{ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	got, err := db.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, got)
	_, err = db.Update(t.Context(), l, "")
	require.ErrorIs(t, err, ledger.ErrUnwritable)
	onPostgres.raw(t, address, "UPDATE meta SET value = '2' WHERE key = 'schema_version'")
	_, err = ledger.Open(t.Context(), address, ledger.Options{ReadOnly: true})
	require.ErrorIs(t, err, ledger.ErrOlderSchema)
	_, err = ledger.Open(t.Context(), fresh(t), ledger.Options{ReadOnly: true})
	require.Error(t, err)
}

// The settings of a role or a database must not weaken what the ledger relies on, nor lead it elsewhere.
func TestDefaultsOfTheRoleChangeNothing(t *testing.T) {
	s := postgrestest.Shared(t)
	one, other := s.NewSchema(t), s.NewSchema(t)
	s.Exec(t, fmt.Sprintf(`CREATE ROLE odd SUPERUSER LOGIN PASSWORD 'x'; ALTER ROLE odd SET default_transaction_isolation = 'serializable';
		ALTER ROLE odd SET synchronous_commit = off; ALTER ROLE odd SET lock_timeout = 1; ALTER ROLE odd SET search_path = %s`, one))
	address := s.AddressOf("odd", "x")
	db := open(t, address)
	l := reserve(t, db, intent("a", 1))

	s.Exec(t, "ALTER ROLE odd SET search_path = "+other)
	s.Exec(t, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'odd'") // and waits for their ends
	got, err := db.Get(t.Context(), l.ID)
	require.NoError(t, err, "new connections go where the first ones went")
	require.Equal(t, l, got)
	testCap(t, open(t, s.AddressOf("odd", "x")))
	reserve(t, db, intent("b", 1)) // on a new connection, which is the one that is asked now
	mode, err := db.Setting(t.Context(), "synchronous_commit")
	require.NoError(t, err)
	require.Equal(t, "on", mode)
	chosen := open(t, s.AddressOf("odd", "x", "synchronous_commit", "remote_apply"))
	mode, err = chosen.Setting(t.Context(), "synchronous_commit")
	require.NoError(t, err)
	require.Equal(t, "remote_apply", mode, "only what is too weak is changed")
}

func TestEncryptedAsTheAddressSays(t *testing.T) {
	s := postgrestest.Shared(t)
	address := s.NewAddress(t)
	db := open(t, on(t, address, "sslmode", "verify-full", "sslrootcert", filepath.Join(s.Dir, "ca.pem")))
	reserve(t, db, intent("a", 1))
	version, err := db.Query(t.Context(), "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
	require.NoError(t, err)
	require.Regexp(t, "^TLSv1.[23]$", version)

	other, err := postgrestest.Start(t.Context())
	postgrestest.Need(t, err)
	defer func() { require.NoError(t, other.Stop()) }()
	_, err = ledger.Open(t.Context(), on(t, address, "sslmode", "verify-full", "sslrootcert", filepath.Join(other.Dir, "ca.pem")), ledger.Options{})
	require.ErrorIs(t, err, ledger.ErrAway)
	require.ErrorContains(t, err, "certificate")
}

// What PostgreSQL's own programs take from elsewhere is taken from there.
func TestPasswordFileAndSeveralHosts(t *testing.T) {
	s := postgrestest.Shared(t)
	file := filepath.Join(t.TempDir(), "pgpass")
	escaped := strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(postgrestest.Password)
	require.NoError(t, os.WriteFile(file, []byte("*:*:*:"+postgrestest.User+":"+escaped+"\n"), 0o600))
	t.Setenv("PGPASSFILE", file)
	address := fmt.Sprintf("postgres://%s@127.0.0.1:1,127.0.0.1:%d/%s?sslmode=disable&search_path=%s", postgrestest.User, s.Port, postgrestest.Database, s.NewSchema(t))
	reserve(t, open(t, address), intent("a", 1))
}

func TestThroughAUnixSocket(t *testing.T) {
	s := postgrestest.Shared(t)
	u, err := url.Parse(s.NewAddress(t))
	require.NoError(t, err)
	q := u.Query()
	q.Set("host", s.Dir)
	q.Set("port", fmt.Sprint(s.Port))
	u.Host, u.RawQuery = "", q.Encode()
	reserve(t, open(t, u.String()), intent("a", 1))
}

// Somebody who stops in the middle of a write holds nobody up for long: neither the readers, nor, after a while, the writers.
func TestAStalledWriterIsThrownOut(t *testing.T) {
	address, l := closedOn(t, onPostgres)
	stalled, other := impatient(t, address), open(t, address)
	deciding, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	lost := intent("a", 7)
	go func() {
		_, err := stalled.Reserve(t.Context(), lost, noon, periods, func(policy.Usage) policy.Decision {
			close(deciding)
			<-goOn
			return policy.Decision{Verdict: policy.Allow}
		})
		done <- err
	}()
	<-deciding
	got, err := other.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, got)
	began := time.Now()
	update(t, other, l)
	require.Less(t, time.Since(began), 8*time.Second, "the server has ended the other's session after a second")
	close(goOn)
	require.ErrorIs(t, <-done, ledger.ErrAway)
	_, err = other.Get(t.Context(), lost.ID)
	require.Error(t, err, "nothing of it was written")
	reserve(t, stalled, lost)
	require.NoError(t, other.Verify(t.Context()))
}

// A half-written transaction of another process, which holds the turn, is in nobody's way who only reads.
func TestOpenAndReadBesideAWriterOnServer(t *testing.T) {
	address, l := closedOn(t, onPostgres)
	c := connect(t, address)
	_, err := c.Exec(t.Context(), fmt.Sprintf("BEGIN; SELECT pg_advisory_xact_lock(%d); UPDATE leases SET purpose = 'half written'", ledger.TurnKey(schemaOf(t, address))))
	require.NoError(t, err)
	began := time.Now()
	db := open(t, address)
	got, err := db.Get(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, l, got)
	_, err = db.Usage(t.Context(), "a", noon, periods)
	require.NoError(t, err)
	require.NoError(t, db.Verify(t.Context()))
	require.Less(t, time.Since(began), 8*time.Second, "none of it waited")
	_, err = impatient(t, address).Update(t.Context(), l, "")
	require.ErrorIs(t, err, ledger.ErrBusy)
	_, err = c.Exec(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	update(t, db, l)
}

// Another ledger behind the address, or an older state of the same one, is not written to, and nothing is concluded from it.
func TestAServerThatComesBackWithAnotherLedger(t *testing.T) {
	for name, c := range map[string]string{
		"deleted":               "DROP SCHEMA %[1]s CASCADE; CREATE SCHEMA %[1]s",
		"its schema is gone":    "DROP SCHEMA %[1]s CASCADE",
		"renamed":               "ALTER SCHEMA %[1]s RENAME TO %[1]s_old",
		"another ledger":        "UPDATE %[1]s.meta SET value = 'zzzz' WHERE key = 'ledger_id'",
		"an older state of it":  "ALTER TABLE %[1]s.events DISABLE TRIGGER ALL; DELETE FROM %[1]s.events WHERE seq = 2; UPDATE %[1]s.chains SET seq = 1 WHERE name = 'events'",
		"replaced by a new one": "DROP SCHEMA %[1]s CASCADE; CREATE SCHEMA %[1]s; -- new",
	} {
		t.Run(name, func(t *testing.T) {
			address, l := closedOn(t, onPostgres)
			db := open(t, address)
			l = update(t, db, l)
			postgrestest.Shared(t).Exec(t, fmt.Sprintf(c, schemaOf(t, address)))
			if strings.HasSuffix(c, "new") {
				open(t, address)
			}
			_, reserve := db.Reserve(t.Context(), intent("b", 1), noon, periods, allow)
			_, update := db.Update(t.Context(), l, "")
			_, take := db.Gate("a").Take(t.Context(), lambda.Slot{Name: lambda.SlotLaunches, Every: time.Second})
			_, get := db.Get(t.Context(), l.ID)
			_, live := db.Live(t.Context())
			for _, err := range []error{reserve, update, take, get, live, db.Beat(t.Context(), "server 1", noon)} {
				require.ErrorIs(t, err, ledger.ErrReplaced)
			}
		})
	}
}

// Both databases have the same tables with the same columns.
func TestSchemasAreTheSame(t *testing.T) {
	path, address := fresh(t), freshOnServer(t)
	open(t, path)
	open(t, address)
	lite, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer lite.Close()
	rows, err := lite.Query("SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY 1")
	require.NoError(t, err)
	var want []string
	for rows.Next() {
		var s string
		require.NoError(t, rows.Scan(&s))
		want = append(want, s)
	}
	require.NoError(t, rows.Err())
	onServer, err := connect(t, address).Query(t.Context(), `SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY (table_name || '.' || column_name) COLLATE "C"`)
	require.NoError(t, err)
	got, err := pgx.CollectRows(onServer, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, want, got)
}
