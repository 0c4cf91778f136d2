package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// What a [Store] answers beside success. Anything else means that the ledger
// could not be read or written: no launch, and nothing is concluded from it.
var (
	ErrNotFound = errors.New("no such lease")
	// ErrConflict: the row has another version than the caller read. Read it
	// again and decide anew.
	ErrConflict = errors.New("the lease was changed by somebody else")
	// ErrFrozen: launches and extensions have been stopped by hand; see Freeze.
	ErrFrozen = errors.New("launches are frozen")
	// ErrClock: the time is before what the ledger already holds. By a clock that
	// went backwards, what was spent today would not count.
	ErrClock = errors.New("the clock is behind the ledger's newest entries")
)

// clockTolerance is how far behind the newest entry a time may be.
const clockTolerance = time.Minute

// CheckClock fails with [ErrClock] where at is more than a minute before newest,
// the newest time that a store holds.
func CheckClock(at, newest time.Time) error {
	if at.Before(newest.Add(-clockTolerance)) {
		return fmt.Errorf("%w: it is %s, and they are of %s", ErrClock, at.UTC().Format(time.RFC3339), newest.UTC().Format(time.RFC3339))
	}
	return nil
}

// Periods are the starts of the current day, week and month in the policy's
// time zone.
type Periods struct{ Day, Week, Month time.Time }

// Reservation is the outcome of [Store.Reserve].
type Reservation struct {
	Lease    Lease
	Decision policy.Decision
	// Existing is true where the principal has used the idempotency key before:
	// Lease is that earlier lease, and nothing was written or decided.
	Existing bool
}

// Store keeps leases durably. Every method that writes is one atomic
// transaction over any number of processes, on disk when it returns.
type Store interface {
	// LedgerID is four base32 characters that name this ledger, made once.
	LedgerID(ctx context.Context) (string, error)

	// Reserve sums the usage of the account and of l.Principal, asks decide, and
	// writes l if the verdict is policy.Allow, or l.Awaits() if it is policy.Ask,
	// all in one transaction. The usage counts, for each lease that Counts, what it
	// holds (see Lease.Held) in every period; for each ended lease its settled cost in
	// each period in which it ended; and apart from them what instances cost that no
	// lease accounts for (see Sight). Usage.LaunchesLastHour counts the leases reserved
	// in the hour before at, Usage.Waiting those that await approval. decide must be pure; it may be called more than once.
	// It fails with ErrFrozen or ErrClock, among others.
	Reserve(ctx context.Context, l Lease, at time.Time, p Periods, decide func(policy.Usage) policy.Decision) (Reservation, error)

	// Rereserve is Reserve for a lease that exists: the usage leaves l's own
	// reservation (and its place among the leases and GPUs in use) out, and if
	// the verdict is policy.Allow, l is written as by Update. Policy.Ask writes
	// nothing here.
	Rereserve(ctx context.Context, l Lease, at time.Time, p Periods, note string, decide func(policy.Usage) policy.Decision) (Lease, policy.Decision, error)

	// Update writes l if its stored version is still l.Version and the change of
	// state is allowed (see State.CanBecome), and returns it with its new
	// version. It fails with ErrConflict or ErrNotFound, and with ErrFrozen where
	// LaunchSentAt changes while launches are frozen. note is kept in the
	// lease's history beside the change.
	Update(ctx context.Context, l Lease, note string) (Lease, error)

	Get(ctx context.Context, id ID) (Lease, error)
	// ByKey is the lease that the principal has asked for under an idempotency
	// key, as Reserve would find it; ErrNotFound for none.
	ByKey(ctx context.Context, principal, key string) (Lease, error)
	// Live lists every lease that has not ended, oldest first.
	Live(ctx context.Context) ([]Lease, error)
	// List lists leases, newest first, at most limit (0 = all).
	List(ctx context.Context, limit int) ([]Lease, error)
	// Usage is what Reserve would hand to decide.
	Usage(ctx context.Context, principal string, at time.Time, p Periods) (policy.Usage, error)
	// Correct adds to what an ended lease has cost: an entry of its own, never an
	// edit. Usage counts it in the periods in which the lease ended.
	Correct(ctx context.Context, id ID, amount policy.Money, at time.Time, note string) error
	// Adopt writes a live lease for an instance of ours that runs and that the
	// store does not know. No decision is asked for: the money is being spent.
	Adopt(ctx context.Context, l Lease, at time.Time, note string) (Lease, error)
	// History lists the changes of a lease, oldest first.
	History(ctx context.Context, id ID) ([]Event, error)

	// Freeze stops every Reserve, Rereserve and launch call from now on, over all
	// processes; the zero Freeze lifts it. Frozen is the one in force, or zero.
	Freeze(ctx context.Context, f Freeze) error
	Frozen(ctx context.Context) (Freeze, error)

	// Sight records which instances an account has, as of at, that no lease accounts
	// for. One that was there and is not among seen any more has ended: at that
	// time, or an hour after it was last seen if that is earlier. So has what was seen in
	// another account, if nobody has looked there for a day. Sighted lists those that have
	// not ended, oldest first.
	Sight(ctx context.Context, account string, at time.Time, seen []Stranger) error
	Sighted(ctx context.Context) ([]Stranger, error)

	// Touch records that a lease was in use at a time; Touched is the latest such
	// time, zero for none. They are no part of the lease's history.
	Touch(ctx context.Context, id ID, at time.Time) error
	Touched(ctx context.Context, id ID) (time.Time, error)

	// Beat records that guard (for instance "server 4711") enforces deadlines as of
	// at; the zero time that it does not any more.
	Beat(ctx context.Context, guard string, at time.Time) error
	// Guards lists the latest beat of each guard, newest first.
	Guards(ctx context.Context) ([]Guard, error)
}

// Event is one change of a lease.
type Event struct {
	At    time.Time
	From  State
	To    State
	Note  string
	Cost  policy.Money // settled cost, where the change settled
	Lease ID
}

// Freeze says that nothing may be launched, since when, by whom and why.
type Freeze struct {
	At  time.Time
	By  string
	Why string
}

// On reports whether launches are frozen.
func (f Freeze) On() bool { return !f.At.IsZero() }

// Stranger is an instance in the account that no lease accounts for: somebody
// else's, or of another ledger. It counts as spending.
type Stranger struct {
	Account  string
	Instance string // its id
	Name     string
	Type     string
	Region   string
	Price    policy.Money // per hour
	Since    time.Time    // when it was first seen, or earlier if the cloud says since when it is billed
	Seen     time.Time    // when it was last seen
}

// The kinds of guards; a guard's name begins with its kind.
const (
	GuardServer = "server" // an MCP server: gone with its agent host
	GuardKeeper = "keeper" // a process of its own, which outlives servers
	GuardReap   = "reap"   // a command that a timer starts now and then
)

// Guard is something that enforces deadlines, and when it last said so.
type Guard struct {
	Name string
	Seen time.Time
}
