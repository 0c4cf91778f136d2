package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// file is a ledger in SQLite: one file on a local disk.
type file struct {
	path   string
	log    *slog.Logger
	busy   time.Duration
	turn   *turn
	is     fs.FileInfo // which file it is that is open
	writer *sql.DB     // one connection
	reader *sql.DB

	writing, reading kept
}

// newFile finds out where the ledger is and opens nothing yet.
func newFile(path string, o Options) (*file, error) {
	if o.ReadOnly {
		return nil, errors.New("a file cannot be opened for reading only")
	}
	f := &file{log: o.Logger, busy: o.BusyTimeout}
	if err := f.place(path); err != nil {
		return nil, err
	}
	f.turn = newTurn(f.path + ".lock")
	return f, nil
}

func (f *file) close() error {
	var errs []error
	if f.reader != nil {
		errs = append(errs, f.reading.close(), f.reader.Close())
	}
	if f.writer != nil {
		errs = append(errs, f.writing.close(), f.writer.Close())
	}
	return errors.Join(append(errs, f.turn.close(min(f.busy, time.Second)))...)
}

// place finds out where the ledger is, behind links: everybody has to use the same lock.
func (f *file) place(path string) error {
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
	f.path = path
	return CheckDisk(filepath.Dir(path))
}

// open attaches to the ledger, and makes and migrates it where needed. Whoever only wants to read or to stop a lease must get in
// while another process holds the turn to write, or is suspended with it in its hand.
func (f *file) open(ctx context.Context, random io.Reader) (id string, err error) {
	ready, err := f.attach(ctx)
	if err == nil && !ready {
		err = f.prepare(ctx, random)
	}
	if err != nil {
		return "", err
	}
	if err := f.writer.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'ledger_id'").Scan(&id); err != nil {
		return "", fmt.Errorf("read the ledger's name: %w", err)
	}
	if f.reader, err = connect(f.path, f.busy, "query_only(1)"); err != nil {
		return "", err
	}
	const readers = 4
	f.reader.SetMaxOpenConns(readers)
	f.reader.SetMaxIdleConns(readers)
	if err := f.reader.PingContext(ctx); err != nil {
		return "", err
	}
	return id, f.inPlace() // the connections are on that file, and it was there before and after them
}

// prepare makes and migrates the ledger, one process at a time: many servers start at the same moment.
func (f *file) prepare(ctx context.Context, random io.Reader) (err error) {
	if err := f.turn.take(ctx, f.busy); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.turn.give()) }()
	if err := f.ensure(ctx, random); err != nil {
		return err
	}
	// Another process may have prepared it while we waited.
	ready, err := f.attach(ctx)
	if err != nil || ready {
		return err
	}
	// Not among the settings of the connection: those would also change a file that is not ours.
	var mode string
	if err := f.writer.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("%w (its file system allows no write-ahead log)", ErrUnwritable)
	}
	version, err := pragma(ctx, f.writer, "user_version")
	if err != nil {
		return err
	}
	if version < SchemaVersion {
		f.log.Info("migrating the ledger", "path", f.path, "from", version, "to", SchemaVersion)
	}
	return migrateFile(ctx, f.writer, version, SchemaVersion)
}

// attach connects to the ledger if there is one, and reports whether it can be used as it is. It waits for no writer and writes nothing.
func (f *file) attach(ctx context.Context) (ready bool, err error) {
	there, err := f.find()
	if err != nil || !there {
		return false, err
	}
	if f.writer == nil {
		if f.writer, err = connect(f.path, f.busy, "synchronous(FULL)", "fullfsync(1)", "foreign_keys(1)"); err != nil {
			return false, err
		}
		f.writer.SetMaxOpenConns(1)
	}
	return f.examine(ctx)
}

// ensure makes the ledger if there is none.
func (f *file) ensure(ctx context.Context, random io.Reader) error {
	there, err := f.find()
	if err != nil || there {
		return err
	}
	return f.create(ctx, random)
}

// find looks whether the ledger is there, and refuses a file that can only be what is left of one. It must not open the
// file itself: closing it would drop the locks that SQLite may hold on it elsewhere in this process.
func (f *file) find() (bool, error) {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(f.path + "-wal"); err == nil {
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
		if err := ownOnly(f.path + suffix); err != nil {
			return false, err
		}
	}
	if f.is == nil {
		f.is = info
		os.SameFile(info, info) // on Windows the file's identity is read only now
	}
	return true, nil
}

// inPlace fails with ErrReplaced where the path leads to another file than the open one, or to none.
func (f *file) inPlace() error {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrReplaced
	case err != nil:
		return fmt.Errorf("look for the ledger file: %w", err)
	case !os.SameFile(f.is, info):
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
func (f *file) create(ctx context.Context, random io.Reader) (err error) {
	draft := f.path + ".new"
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
	empty, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // SQLite gives its other files the same mode
	if err != nil {
		return err
	}
	if err := empty.Close(); err != nil {
		return err
	}
	pool, err := connect(draft, f.busy, "journal_mode(DELETE)", "synchronous(FULL)", "fullfsync(1)", "foreign_keys(1)")
	if err != nil {
		return err
	}
	pool.SetMaxOpenConns(1)
	if err = migrateFile(ctx, pool, 0, SchemaVersion); err == nil {
		err = foundFile(ctx, pool, random)
	}
	if err = errors.Join(err, pool.Close()); err != nil {
		return fmt.Errorf("make a new ledger: %w", err)
	}
	if err := os.Rename(draft, f.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.path))
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

// examine makes sure that the file is a sound ledger of ours that can be written, and reports whether it is in its present form.
func (f *file) examine(ctx context.Context) (ready bool, err error) {
	mark, err := pragma(ctx, f.writer, "application_id")
	if err != nil {
		return false, err
	}
	if mark != applicationID {
		return false, ErrNotLedger
	}
	if err := checkVersion(ctx, f.writer); err != nil {
		return false, err
	}
	var answer string
	if err := f.writer.QueryRowContext(ctx, "PRAGMA quick_check(leases)").Scan(&answer); err != nil {
		return false, err
	}
	if answer != "ok" {
		return false, fmt.Errorf("%w (%s)", ErrCorrupt, answer)
	}
	if err := f.mayWrite(ctx); err != nil {
		return false, err
	}
	version, err := pragma(ctx, f.writer, "user_version")
	if err != nil {
		return false, err
	}
	if err := f.writer.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&answer); err != nil {
		return false, err
	}
	return version == SchemaVersion && answer == "wal", nil
}

// mayWrite finds out whether the file can be written: SQLite opens one that it may only read without a word. This changes nothing,
// and yet asks to write. That somebody else writes just now is no reason to wait: the permission is looked at before the lock.
func (f *file) mayWrite(ctx context.Context) error {
	patience := func(d time.Duration) error {
		_, err := f.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d", d.Milliseconds()))
		return err
	}
	if err := patience(0); err != nil {
		return err
	}
	_, err := f.writer.ExecContext(ctx, "DELETE FROM guards WHERE FALSE")
	if errors.Is(explain(err), ErrBusy) {
		err = nil
	}
	return errors.Join(err, patience(f.busy))
}
