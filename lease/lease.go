package lease

import (
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// ID is a lease's handle: twelve random lower-case base32 characters, minted
// here, unguessable, and part of every name that the lease has in the account.
type ID string

// State is where a lease is in its life.
type State string

// The states of a lease, in the order in which they are reached.
const (
	// WaitingCapacity: nothing of that type is free yet; money is reserved.
	WaitingCapacity State = "waiting_capacity"
	// AwaitingApproval: a person has to say yes first; nothing is reserved.
	AwaitingApproval State = "awaiting_approval"
	// Launching: intent and reservation are on disk. The launch call may or may
	// not have been sent, and its answer may be lost.
	Launching State = "launching"
	// Booting: the cloud has named an instance; it is not usable yet.
	Booting State = "booting"
	// Ready: SSH answers with the pinned host key, cloud-init has finished and
	// every GPU that is paid for is healthy.
	Ready State = "ready"
	// Stopping: the end has been decided and is not confirmed. Money may still
	// be spent.
	Stopping State = "stopping"
	// Ended: nothing can be billed any more. Final.
	Ended State = "ended"
)

// States lists every state.
func States() []State {
	return []State{WaitingCapacity, AwaitingApproval, Launching, Booting, Ready, Stopping, Ended}
}

// Live reports whether money may still be spent or is still reserved.
func (s State) Live() bool { return s != Ended && s != "" }

// next holds the changes of state that are allowed. A state may also be kept.
var next = map[State][]State{
	WaitingCapacity:  {Launching, Ended},
	AwaitingApproval: {Launching, WaitingCapacity, Ended},
	Launching:        {Booting, Stopping, Ended},
	Booting:          {Ready, Stopping, Ended},
	Ready:            {Stopping, Ended},
	Stopping:         {Ended},
}

// CanBecome reports whether a lease in state s may be written as t.
func (s State) CanBecome(t State) bool {
	if s == t {
		return s != Ended
	}
	for _, n := range next[s] {
		if n == t {
			return true
		}
	}
	return false
}

// Reason says why a lease is stopping or has ended.
type Reason string

// The reasons for an end.
const (
	Stopped      Reason = "stopped"       // somebody asked for it
	Deadline     Reason = "deadline"      // its time was up
	Idle         Reason = "idle"          // nothing ran for too long
	OverBudget   Reason = "budget"        // it would have cost more than was agreed
	NoCapacity   Reason = "no_capacity"   // the cloud had none
	Refused      Reason = "refused"       // the cloud said no, or never did it
	Denied       Reason = "denied"        // a person said no
	Expired      Reason = "expired"       // nobody decided in time
	NeverReady   Reason = "never_ready"   // it did not come up within its boot allowance
	GPUUnhealthy Reason = "gpu_unhealthy" // it came up without the GPUs that are paid for
	Gone         Reason = "gone"          // the instance went away by itself
	Cancelled    Reason = "cancelled"     // withdrawn before anything was launched
)

// Lease is one row: intent, reservation and lease. Times are wall time in UTC
// without a monotonic part; the zero time means "not yet".
type Lease struct {
	ID      ID
	Version int64 // counted up by the store at each write; the compare-and-swap key
	State   State
	Reason  Reason // set from Stopping on
	Detail  string // one plain sentence for people: the phase of a boot, the cause of an end

	Principal      string // who asked
	Purpose        string // what for, in the asker's words
	IdempotencyKey string // "" for none; unique per principal
	Fingerprint    string // of the request, to tell a repeat from another request under the same key
	PolicyHash     string // the policy that allowed it
	PolicyOrigin   string // where that comes from, see PolicySource; "" in leases of older versions
	Account        string // fingerprint of the API key that launched it; another key's 404 proves nothing

	Home        string // the state directory that holds its private key: only processes there can reach the machine
	AskedRegion string // "" where any was fine
	Results     string // paths on the machine to bring home before its end, one a line; "" for none
	ResultsDir  string // local directory for them, absolute

	Type        string
	Region      string // "" until one has been chosen
	ImageFamily string
	GPUs        int
	Price       policy.Money // per hour for the whole instance, as quoted
	Reserved    policy.Money // worst case, held until the end; 0 once ended
	Cost        policy.Money // settled at the end; see [Lease.CostAt] before that

	TTL           time.Duration // from ready to the deadline
	BootAllowance time.Duration // from the launch to ready, at most
	StopAllowance time.Duration // from the deadline to a confirmed end, at most

	Name       string // of the instance: signed, see [Name]
	KeyName    string // of the SSH key in the account
	InstanceID string // "" until the cloud has named it
	Addr       string // IPv4 address, "" until known; of a machine that joins the tailnet, see [Lease.InTailnet]
	HostKey    string // pinned host key, authorized_keys form

	NextHostKey string // is right too: the machine may have taken it since it was written here; "" for none
	HostKeyFrom string // where the pinned key is from: HostKeyGiven or HostKeyMade; "" until the machine is ready

	CreatedAt    time.Time // when it was asked for
	DecideBy     time.Time // awaiting approval: when the request expires
	ApprovedAt   time.Time // when a person said yes
	ApprovedBy   string    // who that was
	ReservedAt   time.Time // when the intent and the reservation were written; the boot allowance runs from here
	LaunchSentAt time.Time // written before the launch call; zero proves that none was sent
	SeenAt       time.Time // last good listing that showed the instance
	MissingSince time.Time // first of the good listings in a row that did not show it
	Missing      int       // how many such listings in a row
	BillingFrom  time.Time // earliest moment from which the cloud may bill
	ReadyAt      time.Time
	Deadline     time.Time     // when the lease is ended whatever happens
	HardStop     time.Time     // the latest deadline that the policy could ever extend to; part of the name
	IdleSince    time.Time     // ready: since when nothing has used it; zero while something does, or nobody knows
	GPUWatched   time.Duration // for how long its GPUs have been watched
	GPUBusy      time.Duration // for how much of that one of them worked
	StopAt       time.Time     // when the end was decided
	RescuedAt    time.Time     // stopping: when jobs were ended and results brought home, as far as that went
	Rescue       string        // what came of that, in one sentence
	TerminateAt  time.Time     // when the cloud last accepted a terminate call
	GoneAt       time.Time     // when the cloud first showed it gone
	EndedAt      time.Time
}

// Where a host key is from.
const (
	// HostKeyGiven was made here and given by user_data, which every process on the
	// machine can read; it could not be replaced there.
	HostKeyGiven = "user_data"
	// HostKeyMade was made on the machine and has never left it.
	HostKeyMade = "machine"
)

// CostAt is what the lease has cost at the given time, rounded up to whole
// minutes: from the earliest sign of billing to its confirmed end, so never
// under the cloud's own bill.
func (l Lease) CostAt(now time.Time) policy.Money {
	if l.State == Ended {
		return l.Cost
	}
	if l.BillingFrom.IsZero() {
		return 0
	}
	end := now
	if !l.GoneAt.IsZero() {
		end = l.GoneAt
	}
	if d := end.Sub(l.BillingFrom); d > 0 {
		return l.Price.For(d)
	}
	return 0
}

// WorstCase is what a lease with these terms can cost at most.
func (l Lease) WorstCase() policy.Money {
	return l.Price.For(l.BootAllowance + l.TTL + l.StopAllowance)
}

// Held is what counts against the caps for a lease that has not ended: its
// reservation, or, where nobody ended it in time, what it has cost and will
// cost until an end that is asked for now.
func (l Lease) Held(now time.Time) policy.Money {
	if l.State == Ended {
		return 0
	}
	if cost := l.CostAt(now); cost > 0 && l.GoneAt.IsZero() {
		return max(l.Reserved, cost+l.Price.For(l.StopAllowance))
	}
	return max(l.Reserved, l.CostAt(now))
}

// Awaits is the lease as it is written where a person has to say yes first:
// nothing is reserved and nothing is launched.
func (l Lease) Awaits() Lease {
	l.State, l.Reserved, l.ReservedAt = AwaitingApproval, 0, time.Time{}
	l.Name, l.KeyName, l.HostKey, l.Addr, l.Region = "", "", "", "", l.AskedRegion // made at the launch
	l.Deadline, l.HardStop = time.Time{}, time.Time{}
	l.Detail = "waits for a person: gpulease approve " + string(l.ID)
	return l
}

// Counts reports whether a lease takes its place among the leases and GPUs in
// use. One that waits for approval does not.
func (l Lease) Counts() bool { return l.State.Live() && l.State != AwaitingApproval }

// began is when the boot allowance began to run.
func (l Lease) began() time.Time {
	if l.ReservedAt.IsZero() {
		return l.CreatedAt
	}
	return l.ReservedAt
}

// GPUUse is how much its GPUs have worked, as far as that is known.
func (l Lease) GPUUse() GPUUse { return GPUUse{l.GPUWatched, l.GPUBusy} }

// owns reports whether an instance is this lease's by its signed name, or by
// the tag that repeats it. A key name is no proof: anybody in the account can
// launch with our key.
func (l Lease) owns(inst lambda.Instance) bool {
	if l.Name == "" {
		return false
	}
	if inst.Name == l.Name {
		return true
	}
	for _, t := range inst.Tags {
		if t.Key == tagKey && t.Value == l.Name {
			return true
		}
	}
	return false
}

// hasAnother reports whether the lease's machine is another one than the instance.
func (l Lease) hasAnother(instance string) bool {
	return l.InstanceID != "" && l.InstanceID != instance
}

// ValidID reports whether s has the form of a lease ID.
func ValidID(s string) bool {
	return len(s) == idLength && strings.Trim(s, idAlphabet) == ""
}
