package lease

import (
	"context"
	"errors"
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
)

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
	// writes l only if the verdict is policy.Allow, all in one transaction. The
	// usage counts, for each live lease, what it holds (see Lease.Held) in every
	// period, and for each ended lease its settled cost in each period in which it ended.
	// Usage.LaunchesLastHour counts leases created in the hour before at.
	// decide must be pure; it may be called more than once.
	Reserve(ctx context.Context, l Lease, at time.Time, p Periods, decide func(policy.Usage) policy.Decision) (Reservation, error)

	// Rereserve is Reserve for a lease that exists: the usage leaves l's own
	// reservation (and its place among the leases and GPUs in use) out, and if
	// the verdict is policy.Allow, l is written as by Update.
	Rereserve(ctx context.Context, l Lease, at time.Time, p Periods, note string, decide func(policy.Usage) policy.Decision) (Lease, policy.Decision, error)

	// Update writes l if its stored version is still l.Version and the change of
	// state is allowed (see State.CanBecome), and returns it with its new
	// version. It fails with ErrConflict or ErrNotFound. note is kept in the
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
	// History lists the changes of a lease, oldest first.
	History(ctx context.Context, id ID) ([]Event, error)

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

// The kinds of guards; a guard's name begins with its kind.
const (
	GuardServer = "server" // an MCP server: gone with its agent host
	GuardKeeper = "keeper" // a process of its own, which outlives servers
)

// Guard is something that enforces deadlines, and when it last said so.
type Guard struct {
	Name string
	Seen time.Time
}
