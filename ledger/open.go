package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// Options are what [Open] may be told. The zero value is right outside of tests.
type Options struct {
	Now         func() time.Time // for the times of events and the rate limit; default [time.Now]
	Rand        io.Reader        // for the name of a new ledger; default [crypto/rand.Reader]
	Logger      *slog.Logger     // default: nothing is logged
	BusyTimeout time.Duration    // how long a write may wait for other processes, and an answer from a server; default 10 s
	// Later makes a server that is away while the ledger is opened no error: the methods fail with [ErrAway] until it is there.
	Later bool
	// ReadOnly opens a ledger on a server and makes, migrates and writes nothing. It fails with [fs.ErrNotExist] where there is none, and
	// with [ErrOlderSchema]. A file cannot be opened so: reading one takes its locks.
	ReadOnly bool
}

// DB is a ledger. Its methods may be called by any number of goroutines; several processes may have the same ledger open.
type DB struct {
	now    func() time.Time
	rand   io.Reader
	log    *slog.Logger
	busy   time.Duration
	engine engine

	attaching chan struct{} // held by who attaches or looks whether it is done
	id        string        // once attached
	closed    bool
}

var _ lease.Store = (*DB)(nil)

// engine is the database that a ledger is in.
type engine interface {
	// open attaches to the ledger and returns its name. It makes and migrates the ledger where needed. After ErrAway it may be called again.
	open(ctx context.Context, random io.Reader) (id string, err error)
	// write runs do in a transaction that no other writer can be beside. ctx ends the wait for the turn; a transaction that has
	// begun is brought to its end, with the context that do gets, for it is short and its caller has to know how it went.
	write(ctx context.Context, do func(context.Context, session) error) error
	// read runs do on one consistent state of the ledger. It never waits for writers. patience bounds the answers of a server; 0 is for ever.
	read(ctx context.Context, patience time.Duration, do func(context.Context, session) error) error
	// check looks at the database's own structures.
	check(ctx context.Context, tx session) error
	leader() leader
	close() error
}

// Open opens the ledger at an address: the path of a file, or that of a PostgreSQL database, beginning with postgres:// or
// postgresql://. Where there is no ledger it makes one: a file in a directory of mode 0700 if that is missing too, or tables in a
// schema that has to be there. It brings an older ledger to the present form. It fails with [ErrNewerSchema], [ErrNotLedger],
// [ErrCorrupt], [ErrUnwritable], [ErrFull], [ErrBusy], [ErrNetworkDisk], [ErrAddress] or [ErrAway], among others, and then it has
// changed nothing. It waits for other processes only where it has to make or migrate the ledger. No error holds a password.
func Open(ctx context.Context, address string, o Options) (*DB, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 10 * time.Second
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	db := &DB{now: o.Now, rand: o.Rand, log: o.Logger, busy: o.BusyTimeout, attaching: make(chan struct{}, 1)}
	var err error
	if OnServer(address) {
		db.engine, err = newServer(address, o)
	} else {
		db.engine, err = newFile(address, o)
	}
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", Redact(address), explain(err))
	}
	err = db.attach(ctx)
	if o.Later && errors.Is(err, ErrAway) {
		db.log.Warn("the ledger is away; it is used as soon as it is there", "ledger", Redact(address), "err", err)
		return db, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", Redact(address), errors.Join(err, db.Close()))
	}
	return db, nil
}

// attach opens the ledger if that has not been done yet.
func (db *DB) attach(ctx context.Context) error {
	wait, cancel := context.WithTimeoutCause(ctx, db.busy+time.Second, ErrAway)
	defer cancel()
	select {
	case db.attaching <- struct{}{}:
	case <-wait.Done():
		return context.Cause(wait)
	}
	defer func() { <-db.attaching }()
	switch {
	case db.id != "":
		return nil
	case db.closed:
		return errors.New("the ledger is closed")
	}
	id, err := db.engine.open(ctx, db.rand)
	if err != nil {
		return explain(err)
	}
	db.id = id
	return nil
}

func (db *DB) write(ctx context.Context, do func(context.Context, session) error) error {
	if err := db.attach(ctx); err != nil {
		return err
	}
	return explain(db.engine.write(ctx, do))
}

func (db *DB) read(ctx context.Context, do func(context.Context, session) error) error {
	if err := db.attach(ctx); err != nil {
		return err
	}
	return explain(db.engine.read(ctx, db.busy, do))
}

// readAll is read for what may take long.
func (db *DB) readAll(ctx context.Context, do func(context.Context, session) error) error {
	if err := db.attach(ctx); err != nil {
		return err
	}
	return explain(db.engine.read(ctx, 0, do))
}

// Close gives back what Open took. Methods that are under way are waited for or fail; later ones fail.
func (db *DB) Close() error {
	db.attaching <- struct{}{}
	db.closed = true
	<-db.attaching
	if err := db.engine.close(); err != nil {
		return fmt.Errorf("close the ledger: %w", err)
	}
	return nil
}
