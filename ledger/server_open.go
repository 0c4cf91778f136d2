package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
)

// application is what the row of that name in meta says, where the tables of a schema are ours.
const application = "gpulease"

// open implements engine. It waits for no writer as long as the ledger is in its present form.
func (s *server) open(ctx context.Context, random io.Reader) (id string, err error) {
	var is sight
	err = s.bounded(ctx, func(ctx context.Context) error {
		if err := s.findSchema(ctx); err != nil {
			return err
		}
		is, err = s.look(ctx)
		return err
	})
	switch {
	case err != nil, is.version == SchemaVersion:
	case !s.only:
		err = s.prepare(ctx, random)
	case is.version == 0:
		err = fmt.Errorf("schema %s holds no ledger: %w", s.schema, fs.ErrNotExist)
	default:
		err = ErrOlderSchema
	}
	if err != nil {
		return "", err
	}
	return is.id, s.bounded(ctx, func(ctx context.Context) error {
		if is, err = s.look(ctx); err != nil {
			return err
		}
		id = is.id
		s.is.set(is.id, is.seq)
		return s.mayWrite(ctx)
	})
}

// findSchema finds out where tables are made and looked for, and whether the database is fit for a ledger. Then there are pools of
// connections, which look nowhere else.
func (s *server) findSchema(ctx context.Context) error {
	if s.reader != nil {
		return nil // found before the server went away
	}
	c, err := pgx.ConnectConfig(ctx, s.config.Copy())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	var schema sql.NullString
	var encoding, fsync string
	err = c.QueryRow(ctx, "SELECT current_schema(), current_setting('server_encoding'), current_setting('fsync')").Scan(&schema, &encoding, &fsync)
	switch {
	case err != nil:
		return err
	case !schema.Valid:
		return fmt.Errorf("%w (no schema of the search path is there; create one, and name it in the address: ?search_path=NAME)", ErrUnwritable)
	case encoding != "UTF8":
		return fmt.Errorf("%w (the database is in %s; make one in UTF8)", ErrUnwritable, encoding)
	case fsync == "off":
		s.log.Warn("the ledger's server runs with fsync=off: a power failure can damage the ledger", "ledger", s.shown)
	}
	s.schema = schema.String
	s.key = s.lockKey("writers")
	const readers = 3
	s.writer, s.reader = s.pool(1), s.pool(readers)
	return nil
}

// sight is what a look at a schema has found.
type sight struct {
	id      string
	version int   // 0 where there is no ledger
	seq     int64 // of the last event
}

// look finds out which ledger is in the schema, if any.
func (s *server) look(ctx context.Context) (sight, error) {
	var there bool
	if err := s.reader.QueryRowContext(ctx, "SELECT to_regclass('meta') IS NOT NULL").Scan(&there); err != nil || !there {
		return sight{}, err
	}
	const query = `SELECT COALESCE((SELECT value FROM meta WHERE key = 'application'), ''), COALESCE((SELECT value FROM meta WHERE key = 'ledger_id'), ''),
		COALESCE((SELECT value FROM meta WHERE key = 'schema_version'), '0')::bigint, COALESCE((SELECT seq FROM chains WHERE name = 'events'), 0)`
	var whose string
	var is sight
	err := s.reader.QueryRowContext(ctx, query).Scan(&whose, &is.id, &is.version, &is.seq)
	if unfit(err) || err == nil && (whose != application || is.id == "") {
		return sight{}, fmt.Errorf("%w (schema %s has tables of something else; use a schema of its own: ?search_path=NAME)", ErrNotLedger, s.schema)
	}
	if err != nil {
		return sight{}, err
	}
	return is, tooNew(is.version)
}

func tooNew(version int) error {
	if version > SchemaVersion {
		return fmt.Errorf("%w (schema version %d, this one knows %d)", ErrNewerSchema, version, SchemaVersion)
	}
	return nil
}

// prepare makes or migrates the ledger, in one transaction and one process at a time: many servers start at the same moment.
func (s *server) prepare(ctx context.Context, random io.Reader) error {
	return s.transact(ctx, "", func(ctx context.Context, tx session) error {
		is, err := s.look(ctx) // another process may have prepared it while we waited
		if err != nil || is.version == SchemaVersion {
			return err
		}
		if is.version > 0 {
			s.log.Info("migrating the ledger", "ledger", s.shown, "from", is.version, "to", SchemaVersion)
		}
		for v := max(is.version+1, firstOnServer); v <= SchemaVersion; v++ {
			if err := step(ctx, tx, "migrations/postgres", v); inTheWay(err) {
				return fmt.Errorf("%w (%w; use a schema of its own: ?search_path=NAME)", ErrNotLedger, err)
			} else if err != nil {
				return fmt.Errorf("migrate to schema version %d: %w", v, err)
			}
		}
		if is.version == 0 {
			if _, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('application', ?)", application); err != nil {
				return err
			}
			if err := found(ctx, tx, random); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('schema_version', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", fmt.Sprint(SchemaVersion))
		return err
	})
}

// rights are what a role needs. Where it has no more, it cannot change the past.
var rights = []struct{ may, tables string }{
	{"SELECT", "meta leases events decisions chains guards rates freezes strangers uses"},
	{"INSERT", "leases events decisions guards rates freezes strangers uses"},
	{"UPDATE", "leases chains guards rates freezes strangers uses"},
	{"DELETE", "guards freezes strangers"},
}

// mayWrite finds out whether the role has the rights that the ledger needs.
func (s *server) mayWrite(ctx context.Context) error {
	var needed []string
	for _, r := range rights {
		for _, table := range strings.Fields(r.tables) {
			needed = append(needed, fmt.Sprintf("('%s', '%s')", table, r.may))
		}
	}
	var missing sql.NullString
	err := s.reader.QueryRowContext(ctx, "SELECT string_agg(what || ' in ' || name, ', ') FROM (VALUES "+strings.Join(needed, ", ")+") AS needed (name, what) WHERE NOT has_table_privilege(name, what)").Scan(&missing)
	if err == nil && missing.Valid {
		err = fmt.Errorf("%w (the role lacks these rights: %s)", ErrUnwritable, missing.String)
	}
	return err
}

// bounded runs do, which asks the server for something, within the time that it has to answer.
func (s *server) bounded(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.patience(), errSilent)
	defer cancel()
	return s.answered(ctx, do(ctx))
}
