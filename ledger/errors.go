package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Why a ledger cannot be used. With any of them nothing may be launched.
var (
	ErrNewerSchema = errors.New("the ledger was written by a newer version of gpulease; update this one")
	ErrNotLedger   = errors.New("the file is a database, but not a gpulease ledger")
	ErrCorrupt     = errors.New("the ledger file is damaged; move it away only after checking the account for running instances")
	ErrUnwritable  = errors.New("the ledger cannot be written; check its permissions and its directory's")
	ErrFull        = errors.New("no space is left for the ledger")
	ErrBusy        = errors.New("another process held the ledger for too long")
	ErrReplaced    = errors.New("the ledger file was deleted or replaced while it was in use; check the account for running instances, then restart gpulease")
	ErrNetworkDisk = errors.New("the ledger is on a network file system, where locks do not protect it; put it on a local disk")
	ErrPostgres    = errors.New("this version keeps its ledger in SQLite only: give a file path, not a postgres:// address")
)

// Why a write is refused while the ledger itself is well. [lease.ErrConflict] and [lease.ErrNotFound] are the others.
var (
	// ErrTransition: the lease may not change its state like that; see [lease.State.CanBecome]. Trying again is useless.
	ErrTransition = errors.New("a lease cannot change its state like that")
	// ErrUnreserved: only Rereserve may raise a reservation, for only there the caps are checked.
	ErrUnreserved = errors.New("a reservation cannot be raised without a decision")
	// ErrImmutable: ID, principal, idempotency key and time of creation of a lease never change.
	ErrImmutable = errors.New("a lease cannot change whose it is or when it was made")
	// ErrDuplicate: another lease has that ID, instance or instance name.
	ErrDuplicate = errors.New("another lease has the same id, instance or instance name")
	// ErrInvalid: the lease breaks one of the ledger's own rules, such as a negative amount.
	ErrInvalid = errors.New("the lease breaks a rule of the ledger")
)

// explain adds to an error from SQLite or the file system which of ours it is.
func explain(err error) error {
	var e *sqlite.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		if kind := kindOf(e.Code()); kind != nil {
			return fmt.Errorf("%w (%w)", kind, err)
		}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w (%w)", ErrUnwritable, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w (%w)", ErrFull, err)
	}
	return err
}

func kindOf(code int) error {
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return ErrDuplicate
	case sqlite3.SQLITE_IOERR_SHMSIZE:
		return ErrFull
	}
	switch code & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return ErrBusy
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return ErrUnwritable
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return ErrCorrupt
	case sqlite3.SQLITE_FULL:
		return ErrFull
	case sqlite3.SQLITE_CONSTRAINT:
		return ErrInvalid
	}
	return nil
}
