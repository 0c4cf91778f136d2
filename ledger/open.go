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
	writer *sql.DB // one connection
	reader *sql.DB
}

var _ lease.Store = (*DB)(nil)

// Open opens the ledger at path. Where there is none it makes one, in a directory of mode 0700 if that is missing too. It brings
// an older ledger to the present schema. It fails with [ErrNewerSchema], [ErrNotLedger], [ErrCorrupt], [ErrUnwritable], [ErrFull],
// [ErrBusy], [ErrNetworkDisk] or [ErrPostgres], among others, and then it has changed nothing.
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
	return checkDisk(filepath.Dir(path))
}

// open makes and migrates the ledger where needed, one process at a time: many servers start at the same moment.
func (db *DB) open(ctx context.Context, random io.Reader) (err error) {
	db.turn = newTurn(db.path + ".lock")
	if err := db.turn.take(ctx, db.busy); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.turn.give()) }()

	if err := db.ensure(ctx, random); err != nil {
		return err
	}
	if db.writer, err = connect(db.path, db.busy, "synchronous(FULL)", "fullfsync(1)", "foreign_keys(1)"); err != nil {
		return err
	}
	db.writer.SetMaxOpenConns(1)
	if err := db.check(ctx); err != nil {
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
	return db.reader.PingContext(ctx)
}

// ensure makes the ledger if there is none, and refuses a file that can only be what is left of one. It must not open an
// existing file itself: closing it would drop the locks that SQLite may hold on it elsewhere in this process.
func (db *DB) ensure(ctx context.Context, random io.Reader) error {
	info, err := os.Stat(db.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(db.path + "-wal"); err == nil {
			return fmt.Errorf("%w (it is missing, but its -wal file is there)", ErrCorrupt)
		}
		return db.create(ctx, random)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w (%s)", ErrNotLedger, "it is not a file")
	case info.Size() == 0:
		return fmt.Errorf("%w (it is empty)", ErrCorrupt)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := ownOnly(db.path + suffix); err != nil {
			return err
		}
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

// check makes sure that the file is a sound ledger of ours that can be written, and migrates it.
func (db *DB) check(ctx context.Context) error {
	mark, err := pragma(ctx, db.writer, "application_id")
	if err != nil {
		return err
	}
	if mark != applicationID {
		return ErrNotLedger
	}
	if err := checkVersion(ctx, db.writer); err != nil {
		return err
	}
	var answer string
	if err := db.writer.QueryRowContext(ctx, "PRAGMA quick_check(leases)").Scan(&answer); err != nil {
		return err
	}
	if answer != "ok" {
		return fmt.Errorf("%w (%s)", ErrCorrupt, answer)
	}
	// Not among the settings of the connection: those would also change a file that is not ours.
	if err := db.writer.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&answer); err != nil {
		return err
	}
	if answer != "wal" {
		return fmt.Errorf("%w (its file system allows no write-ahead log)", ErrUnwritable)
	}
	// SQLite opens a file that it may only read without a word. This changes nothing, and yet asks to write.
	if _, err := db.writer.ExecContext(ctx, "DELETE FROM guards WHERE FALSE"); err != nil {
		return err
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
