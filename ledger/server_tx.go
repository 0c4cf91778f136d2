package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// errSilent ends a wait for the server that is ours and not the caller's.
var errSilent = errors.New("no answer")

// patience is how long the server may take to answer.
func (s *server) patience() time.Duration { return max(s.busy, time.Second) }

// answered makes ErrAway of an error that comes from our own patience with the server.
func (s *server) answered(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		return fmt.Errorf("%w (no answer within %s)", ErrAway, s.patience())
	}
	return err
}

// identity is which ledger is open, and how far it was when it was last seen. A server can come back with another one behind
// the same address, or with an older state of it.
type identity struct {
	mu  sync.Mutex
	id  string
	seq int64 // of the last event
}

func (i *identity) set(id string, seq int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.id, i.seq = id, max(i.seq, seq)
}

// advance notes that the ledger ends at an event, or later.
func (i *identity) advance(seq int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seq = max(i.seq, seq)
}

// end is the last event that is known.
func (i *identity) end() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seq
}

// lookAtIdentity has a row that identity.check takes.
const lookAtIdentity = "SELECT (SELECT value FROM meta WHERE key = 'ledger_id'), (SELECT value FROM meta WHERE key = 'schema_version'), (SELECT seq FROM chains WHERE name = 'events')"

// check returns the schema version, or ErrReplaced. row is what lookAtIdentity yields, as text, and least what end was before.
func (i *identity) check(row [][]byte, least int64) (version int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if string(row[0]) != i.id {
		return 0, ErrReplaced
	}
	seq, err := strconv.ParseInt(string(row[2]), 10, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w (its last event: %w)", ErrCorrupt, err)
	case seq < least:
		return 0, fmt.Errorf("%w (it ends at event %d, and had %d)", ErrReplaced, seq, least)
	}
	i.seq = max(i.seq, seq)
	if version, err = strconv.Atoi(string(row[1])); err != nil {
		err = fmt.Errorf("%w (its schema version: %w)", ErrCorrupt, err)
	}
	return version, err
}

func (s *server) write(ctx context.Context, do func(context.Context, session) error) error {
	if s.only {
		return fmt.Errorf("%w (it was opened for reading only)", ErrUnwritable)
	}
	return s.transact(ctx, lookAtIdentity, do)
}

// transact runs do in a transaction that no other writer can be beside. They take turns by a lock that ends with the transaction;
// it is the only one that anybody waits for, so that there are no deadlocks. look is lookAtIdentity, or "" while there may be no ledger.
func (s *server) transact(ctx context.Context, look string, do func(context.Context, session) error) error {
	const grace = time.Second // in which the server says itself that others were waited for too long
	wait, cancel := context.WithTimeoutCause(ctx, s.busy+grace, errSilent)
	defer cancel()
	turn, cancelTurn := context.WithTimeout(context.WithoutCancel(ctx), s.busy)
	defer cancelTurn()
	if err := s.takeTurn(wait); err != nil {
		return err
	}
	due, _ := turn.Deadline() // also while the server is waited for
	defer func() { <-s.inTurn }()
	least := s.is.end()
	// Each statement sees what was committed before it, and so everything that was before the lock was had.
	conn, row, err := s.begin(wait, s.writer, fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = %d; SELECT pg_advisory_xact_lock(%d); %s",
		max(time.Until(due), time.Millisecond).Milliseconds(), s.key, look))
	if err != nil {
		return s.answered(wait, err)
	}
	cancel()
	// From here on the caller has to know how it goes.
	ctx, cancel = context.WithTimeoutCause(context.WithoutCancel(ctx), s.patience(), errSilent)
	defer cancel()
	open := true
	defer func() {
		if open { // also when do panics
			rollback(ctx, conn)
		}
	}()
	if look != "" {
		// A newer version may have changed the schema since we opened the ledger.
		version, err := s.is.check(row, least)
		if err = errors.Join(err, tooNew(version)); err != nil {
			return err
		}
	}
	if err := do(ctx, numbered{conn}); err != nil {
		return s.answered(ctx, err)
	}
	open = false
	return s.commit(ctx, conn)
}

// takeTurn waits for the other writers of this process.
func (s *server) takeTurn(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case s.inTurn <- struct{}{}:
		return nil
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errSilent) {
			return ErrBusy
		}
		return ctx.Err()
	}
}

// begin begins a transaction on a connection from a pool and returns the row that the last statement of script yields, if any. A connection
// that turns out to be dead is replaced once: the server may have been restarted since it was last used.
func (s *server) begin(ctx context.Context, pool *sql.DB, script string) (*sql.Conn, [][]byte, error) {
	for again := false; ; again = true {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return nil, nil, err
		}
		results, err := run(ctx, conn, script)
		if err == nil {
			var row [][]byte
			if last := results[len(results)-1]; len(last.Rows) > 0 {
				row = last.Rows[0]
			}
			return conn, row, nil
		}
		rollback(ctx, conn)
		if again || ctx.Err() != nil || !errors.Is(explain(err), ErrAway) {
			return nil, nil, goneTables(err)
		}
	}
}

// run runs several statements in one exchange with the server.
func run(ctx context.Context, conn *sql.Conn, script string) (results []*pgconn.Result, err error) {
	err = conn.Raw(func(c any) error {
		results, err = c.(*stdlib.Conn).Conn().PgConn().Exec(ctx, script).ReadAll()
		return err
	})
	return results, err
}

// commit ends a transaction. Where the connection breaks meanwhile, nobody can tell whether it was committed.
func (s *server) commit(ctx context.Context, conn *sql.Conn) error {
	results, err := run(ctx, conn, "SELECT seq FROM chains WHERE name = 'events'; COMMIT")
	var said *pgconn.PgError
	switch {
	case err == nil && results[1].CommandTag.String() != "COMMIT":
		err = errors.New("the transaction was rolled back")
	case err == nil:
		if rows := results[0].Rows; len(rows) > 0 {
			if seq, err := strconv.ParseInt(string(rows[0][0]), 10, 64); err == nil {
				s.is.advance(seq)
			}
		}
		return conn.Close()
	case errors.As(err, &said) && said.SeverityUnlocalized == "ERROR":
	case pgconn.SafeToRetry(err): // not even sent
		err = fmt.Errorf("%w (%w)", ErrAway, err)
	default:
		discard(conn)
		return fmt.Errorf("%w (%w)", ErrUnknown, err)
	}
	rollback(ctx, conn)
	return err
}

func (s *server) read(ctx context.Context, patience time.Duration, do func(context.Context, session) error) error {
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, max(patience, time.Second), errSilent)
		defer cancel()
	}
	var conn *sql.Conn
	var row [][]byte
	least := s.is.end()
	err := s.bounded(ctx, func(ctx context.Context) (err error) {
		conn, row, err = s.begin(ctx, s.reader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "+lookAtIdentity)
		return err
	})
	if err != nil {
		return err
	}
	defer rollback(ctx, conn) // there is nothing to commit
	if _, err := s.is.check(row, least); err != nil {
		return err
	}
	return s.answered(ctx, do(ctx, numbered{conn}))
}

// rollback ends a transaction that is not wanted and gives the connection back, or ends the connection and with it the transaction.
func rollback(ctx context.Context, conn *sql.Conn) {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if _, err := run(ctx, conn, "ROLLBACK"); err != nil {
		discard(conn)
		return
	}
	_ = conn.Close()
}

// discard closes a connection instead of giving it back.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}
