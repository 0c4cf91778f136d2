// Package ledger keeps leases, their reservations and settlements, the decisions that allowed or denied them and the history of
// every change, durably and for any number of processes at once. [DB] is the [lease.Store] of the product.
//
// One lease is one row, and that row is intent, reservation and lease in one, so nothing can be reserved without a lease that
// says what for. Each method that writes is one transaction, on disk when it returns. Writers take turns; readers never wait.
//
// A ledger is a file in SQLite, in WAL mode with full synchronisation: there the turn is a file lock beside it, because SQLite's own
// waiting lets one busy process starve the others. Or it is the tables of a schema in PostgreSQL, where the turn is an
// advisory lock that ends with the transaction. The statements are the same; what differs is an engine.
//
// Events and decisions are append-only, by triggers, and chained by SHA-256, each with its predecessor; an event also holds a
// digest of the lease as it was written. [DB.Verify] finds a row that was changed, removed or moved, in the trail and
// among the leases. It cannot find a forgery by somebody who recomputes all hashes: that would need a secret or a witness elsewhere.
//
// Money is in integer micro-dollars, durations are in nanoseconds, and times in milliseconds of Unix time in UTC, where 0 is
// the zero time. Text that is not valid UTF-8 is mended before it is stored.
//
// An idempotency key stays taken for ever, also after its lease has ended: a repeat that comes late must never launch twice.
// A request that was denied leaves its key free.
//
// The package decides nothing about money: the caller's function does, inside the transaction. It knows no policy rules, calls no
// cloud, and repairs nothing: what is damaged, foreign or newer is an error, and never replaced by an empty ledger.
package ledger
