package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
)

// leader is a Leader's lock.
type leader interface {
	try(ctx context.Context, account string) (bool, error)
	yield()
	close() error
}

// Leader is the lock of the one process that reconciles an account's leases of a ledger. It is lost when the process dies or, on a
// server, when the connection that has it does.
type Leader struct {
	db   *DB
	mu   sync.Mutex
	lock leader
}

// Leader returns the lock, which it does not take yet. It has to be closed before the ledger.
func (db *DB) Leader() *Leader { return &Leader{db: db, lock: db.engine.leader()} }

// leaderPatience bounds how long the lock may take to be asked for.
const leaderPatience = 3 * time.Second

// Try takes the lock for an account, which it gives back for any other, or makes sure that it still has it. It waits for nobody who
// has it, and at most 3 s for a server.
func (l *Leader) Try(account string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), leaderPatience)
	defer cancel()
	err := l.db.attach(ctx)
	var have bool
	if err == nil {
		have, err = l.lock.try(ctx, text(account))
	}
	switch {
	case err == nil:
		return have, nil
	case ctx.Err() != nil:
		return false, fmt.Errorf("take the lead: %w (no answer within %s)", ErrAway, leaderPatience)
	}
	return false, fmt.Errorf("take the lead: %w", explain(err))
}

// Yield gives the lock back, if it is held.
func (l *Leader) Yield() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lock.yield()
}

// Close gives the lock back and ends.
func (l *Leader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lock.close()
}

// fileLeader is a lock on a file beside the ledger, which the kernel drops when the process dies.
type fileLeader struct {
	path    string
	account string
	lock    *flock.Flock
}

func (f *file) leader() leader { return &fileLeader{path: f.path} }

func (l *fileLeader) try(_ context.Context, account string) (bool, error) {
	if l.lock != nil && l.account != account {
		if err := l.close(); err != nil {
			return false, err
		}
	}
	if l.lock == nil {
		l.account, l.lock = account, flock.New(l.path+".leader-"+account, flock.SetPermissions(0o600))
	}
	return l.lock.TryLock()
}

func (l *fileLeader) yield() {
	if l.lock != nil {
		_ = l.lock.Unlock() // closing would say it again
	}
}

func (l *fileLeader) close() error {
	if l.lock == nil {
		return nil
	}
	lock := l.lock
	l.lock = nil
	return lock.Close()
}

// serverLeader is a lock of a connection of its own.
type serverLeader struct {
	s       *server
	account string
	held    bool
	conn    *pgx.Conn
}

func (s *server) leader() leader { return &serverLeader{s: s} }

func (l *serverLeader) try(ctx context.Context, account string) (have bool, err error) {
	if l.held && l.account != account {
		l.yield()
	}
	if l.conn != nil && l.conn.Ping(ctx) != nil { // with it the lock is gone
		_ = l.drop()
	}
	if l.held {
		return true, nil
	}
	if l.conn == nil {
		if l.conn, err = pgx.ConnectConfig(ctx, l.s.config.Copy()); err != nil {
			return false, err
		}
		if err = l.s.prepareConn(ctx, l.conn); err != nil {
			return false, errors.Join(err, l.drop())
		}
	}
	if err := l.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", l.s.lockKey("leader "+account)).Scan(&l.held); err != nil {
		return false, errors.Join(err, l.drop()) // it may have been given, and its answer lost
	}
	l.account = account
	return l.held, nil
}

func (l *serverLeader) yield() {
	if !l.held {
		return
	}
	l.held = false
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := l.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", l.s.lockKey("leader "+l.account)); err != nil {
		_ = l.drop() // that frees it
	}
}

func (l *serverLeader) close() error {
	l.yield() // the server may take a moment to notice that a connection has ended
	return l.drop()
}

// drop ends the connection, and with it the lock.
func (l *serverLeader) drop() error {
	l.held = false
	if l.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := l.conn.Close(ctx)
	l.conn = nil
	return err
}
