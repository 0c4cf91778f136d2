package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Why a ledger cannot be used. With any of them nothing may be launched.
var (
	ErrNewerSchema = errors.New("the ledger was written by a newer version of gpulease; update this one")
	// ErrOlderSchema: only where a ledger may not be migrated.
	ErrOlderSchema = errors.New("the ledger was written by an older version of gpulease; the next server or command that writes migrates it")
	ErrNotLedger   = errors.New("this is a database, but not a gpulease ledger")
	ErrCorrupt     = errors.New("the ledger is damaged; replace it only after checking the account for running instances")
	ErrUnwritable  = errors.New("the ledger cannot be written; check the permissions of the file and its directory, or of the role in PostgreSQL")
	ErrFull        = errors.New("no space is left for the ledger")
	ErrBusy        = errors.New("another process held the ledger for too long")
	ErrReplaced    = errors.New("the ledger was deleted, replaced or set back while it was in use; check the account for running instances, then restart gpulease")
	ErrNetworkDisk = errors.New("the ledger is on a network file system, where locks do not protect it; put it on a local disk, or into PostgreSQL")
	// ErrAddress: the address of a PostgreSQL server cannot be read.
	ErrAddress = errors.New("the address of the ledger has to be like postgres://user:password@host:5432/database")
	// ErrAway: the PostgreSQL server cannot be reached, or takes no connection. Nothing was written.
	ErrAway = errors.New("the PostgreSQL server of the ledger is away or refuses us")
	// ErrUnknown: the connection was lost at the end of a write. Read again before trying anew; a repeat is refused where it would
	// write twice: by the lease's version, its id or its idempotency key.
	ErrUnknown = errors.New("the connection to the ledger was lost while it wrote: whether it has written is not known")
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

// explain adds to an error from a database or the file system which of ours it is.
func explain(err error) error {
	var lite *sqlite.Error
	var kind error
	switch {
	case err == nil, ours(err):
		return err
	case errors.As(err, &lite):
		kind = kindOf(lite.Code())
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		kind = ErrUnwritable
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind = ErrFull
	default:
		kind = kindOnServer(err)
	}
	if kind == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", kind, err)
}

// ours reports whether an error says already which of ours it is.
func ours(err error) bool {
	return slices.ContainsFunc([]error{ErrNewerSchema, ErrOlderSchema, ErrNotLedger, ErrCorrupt, ErrUnwritable, ErrFull, ErrBusy, ErrReplaced, ErrNetworkDisk, ErrAddress, ErrAway, ErrUnknown},
		func(kind error) bool { return errors.Is(err, kind) })
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
