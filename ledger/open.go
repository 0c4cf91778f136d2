package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// Options are what [Open] may be told. The zero value is right outside of tests.
type Options struct {
	Now         func() time.Time // for the times of events and the rate limit; default [time.Now]
	Rand        io.Reader        // for the name of a new ledger; default [crypto/rand.Reader]
	Logger      *slog.Logger     // default: nothing is logged
	BusyTimeout time.Duration    // how long a write may wait for other processes; default 10 s
}

// DB is a ledger. Its methods may be called by any number of goroutines; several processes may have the same ledger open.
type DB struct {
	path   string
	id     string
	now    func() time.Time
	log    *slog.Logger
	busy   time.Duration
	turn   *turn
	file   fs.FileInfo // which file it is that is open
	writer *sql.DB     // one connection
	reader *sql.DB
}

var _ lease.Store = (*DB)(nil)

// Open opens the ledger at path. Where there is none it makes one, in a directory of mode 0700 if that is missing too. It brings
// an older ledger to the present schema. It fails with [ErrNewerSchema], [ErrNotLedger], [ErrCorrupt], [ErrUnwritable], [ErrFull],
// [ErrBusy], [ErrNetworkDisk] or [ErrPostgres], among others, and then it has changed nothing. It waits for other processes only
// where it has to make or migrate the ledger.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	if strings.HasPrefix(path, "postgres://") || strings.HasPrefix(path, "postgresql://") {
		return nil, fmt.Errorf("open the ledger: %w", ErrPostgres) // the address holds a password
	}
	db := &DB{now: o.Now, log: o.Logger, busy: o.BusyTimeout}
	if db.now == nil {
		db.now = time.Now
	}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if db.busy <= 0 {
		db.busy = 10 * time.Second
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	err := db.place(path)
	if err == nil {
		err = db.open(ctx, o.Rand)
	}
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", path, errors.Join(explain(err), db.Close()))
	}
	return db, nil
}

// Close gives back what Open took. Methods that are under way are waited for or fail; later ones fail.
func (db *DB) Close() error {
	var errs []error
	if db.reader != nil {
		errs = append(errs, db.reader.Close())
	}
	if db.writer != nil {
		errs = append(errs, db.writer.Close())
	}
	if db.turn != nil {
		errs = append(errs, db.turn.close(min(db.busy, time.Second)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the ledger: %w", err)
	}
	return nil
}

// place finds out where the ledger is, behind links: everybody has to use the same lock.
func (db *DB) place(path string) error {
	if path == "" {
		return errors.New("no path was given")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	db.path = path
	return CheckDisk(filepath.Dir(path))
}

// open attaches to the ledger, and makes and migrates it where needed. Whoever only wants to read or to stop a lease must get in
// while another process holds the turn to write, or is suspended with it in its hand.
func (db *DB) open(ctx context.Context, random io.Reader) error {
	db.turn = newTurn(db.path + ".lock")
	ready, err := db.attach(ctx)
	if err == nil && !ready {
		err = db.prepare(ctx, random)
	}
	if err != nil {
		return err
	}
	if err := db.writer.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'ledger_id'").Scan(&db.id); err != nil {
		return fmt.Errorf("read the ledger's name: %w", err)
	}
	if db.reader, err = connect(db.path, db.busy, "query_only(1)"); err != nil {
		return err
	}
	const readers = 4
	db.reader.SetMaxOpenConns(readers)
	db.reader.SetMaxIdleConns(readers)
	if err := db.reader.PingContext(ctx); err != nil {
		return err
	}
	return db.inPlace() // the connections are on that file, and it was there before and after them
}

// prepare makes and migrates the ledger, one process at a time: many servers start at the same moment.
func (db *DB) prepare(ctx context.Context, random io.Reader) (err error) {
	if err := db.turn.take(ctx, db.busy); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.turn.give()) }()
	if err := db.ensure(ctx, random); err != nil {
		return err
	}
	// Another process may have prepared it while we waited.
	ready, err := db.attach(ctx)
	if err != nil || ready {
		return err
	}
	// Not among the settings of the connection: those would also change a file that is not ours.
	var mode string
	if err := db.writer.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("%w (its file system allows no write-ahead log)", ErrUnwritable)
	}
	version, err := pragma(ctx, db.writer, "user_version")
	if err != nil {
		return err
	}
	if version < schemaVersion {
		db.log.Info("migrating the ledger", "path", db.path, "from", version, "to", schemaVersion)
	}
	return migrate(ctx, db.writer, version, schemaVersion)
}

// attach connects to the ledger if there is one, and reports whether it can be used as it is. It waits for no writer and writes nothing.
func (db *DB) attach(ctx context.Context) (ready bool, err error) {
	there, err := db.find()
	if err != nil || !there {
		return false, err
	}
	if db.writer == nil {
		if db.writer, err = connect(db.path, db.busy, "synchronous(FULL)", "fullfsync(1)", "foreign_keys(1)"); err != nil {
			return false, err
		}
		db.writer.SetMaxOpenConns(1)
	}
	return db.check(ctx)
}

// ensure makes the ledger if there is none.
func (db *DB) ensure(ctx context.Context, random io.Reader) error {
	there, err := db.find()
	if err != nil || there {
		return err
	}
	return db.create(ctx, random)
}

// find looks whether the ledger is there, and refuses a file that can only be what is left of one. It must not open the
// file itself: closing it would drop the locks that SQLite may hold on it elsewhere in this process.
func (db *DB) find() (bool, error) {
	info, err := os.Stat(db.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(db.path + "-wal"); err == nil {
			return false, fmt.Errorf("%w (it is missing, but its -wal file is there)", ErrCorrupt)
		}
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%w (%s)", ErrNotLedger, "it is not a file")
	case info.Size() == 0:
		return false, fmt.Errorf("%w (it is empty)", ErrCorrupt)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := ownOnly(db.path + suffix); err != nil {
			return false, err
		}
	}
	if db.file == nil {
		db.file = info
		os.SameFile(info, info) // on Windows the file's identity is read only now
	}
	return true, nil
}

// inPlace fails with ErrReplaced where the path leads to another file than the open one, or to none.
func (db *DB) inPlace() error {
	info, err := os.Stat(db.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrReplaced
	case err != nil:
		return fmt.Errorf("look for the ledger file: %w", err)
	case !os.SameFile(db.file, info):
		return ErrReplaced
	}
	return nil
}

// ownOnly takes a file away from everybody but its owner.
func ownOnly(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(path, info.Mode().Perm()&0o700)
}

// create makes a ledger beside its place and moves it there when it is whole. So an empty file at its place is never one that a
// crash has left half made.
func (db *DB) create(ctx context.Context, random io.Reader) (err error) {
	draft := db.path + ".new"
	remove := func() error {
		var errs []error
		for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
			if err := os.Remove(draft + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	if err := remove(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	f, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // SQLite gives its other files the same mode
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	pool, err := connect(draft, db.busy, "journal_mode(DELETE)", "synchronous(FULL)", "fullfsync(1)", "foreign_keys(1)")
	if err != nil {
		return err
	}
	pool.SetMaxOpenConns(1)
	if err = migrate(ctx, pool, 0, schemaVersion); err == nil {
		err = found(ctx, pool, random)
	}
	if err = errors.Join(err, pool.Close()); err != nil {
		return fmt.Errorf("make a new ledger: %w", err)
	}
	if err := os.Rename(draft, db.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(db.path))
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // there is no such call
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// check makes sure that the file is a sound ledger of ours that can be written, and reports whether it is in its present form.
func (db *DB) check(ctx context.Context) (ready bool, err error) {
	mark, err := pragma(ctx, db.writer, "application_id")
	if err != nil {
		return false, err
	}
	if mark != applicationID {
		return false, ErrNotLedger
	}
	if err := checkVersion(ctx, db.writer); err != nil {
		return false, err
	}
	var answer string
	if err := db.writer.QueryRowContext(ctx, "PRAGMA quick_check(leases)").Scan(&answer); err != nil {
		return false, err
	}
	if answer != "ok" {
		return false, fmt.Errorf("%w (%s)", ErrCorrupt, answer)
	}
	if err := db.mayWrite(ctx); err != nil {
		return false, err
	}
	version, err := pragma(ctx, db.writer, "user_version")
	if err != nil {
		return false, err
	}
	if err := db.writer.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&answer); err != nil {
		return false, err
	}
	return version == schemaVersion && answer == "wal", nil
}

// mayWrite finds out whether the file can be written: SQLite opens one that it may only read without a word. This changes nothing,
// and yet asks to write. That somebody else writes just now is no reason to wait: the permission is looked at before the lock.
func (db *DB) mayWrite(ctx context.Context) error {
	patience := func(d time.Duration) error {
		_, err := db.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d", d.Milliseconds()))
		return err
	}
	if err := patience(0); err != nil {
		return err
	}
	_, err := db.writer.ExecContext(ctx, "DELETE FROM guards WHERE FALSE")
	if errors.Is(explain(err), ErrBusy) {
		err = nil
	}
	return errors.Join(err, patience(db.busy))
}
