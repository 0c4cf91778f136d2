package lambdatest

import (
	"math/big"
	"time"
)

// Status is the state of an instance, in Lambda's words.
type Status string

// The statuses of the API, and Gone for an instance that answers 404.
const (
	Booting     Status = "booting"
	Active      Status = "active"
	Unhealthy   Status = "unhealthy"
	Terminating Status = "terminating"
	Terminated  Status = "terminated"
	Preempted   Status = "preempted"
	Gone        Status = "gone"
)

// Tag is a key and a value.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type mount struct {
	MountPoint   string `json:"mount_point"`
	FileSystemID string `json:"file_system_id"`
}

// instance is what is known about one instance. Its status is not stored: it
// follows from these times and the clock.
type instance struct {
	ID, Name, IP, PrivateIP, Hostname string
	JupyterToken                      string
	Type                              Type // as at the launch: the price stays
	Region                            Region
	ImageID, ImageFamily              string
	KeyNames, AuthorizedKeys          []string
	Tags                              []Tag
	FilesystemIDs                     []string
	Mounts                            []mount
	Rulesets                          []string
	UserData                          string

	LaunchedAt time.Time
	VisibleAt  time.Time // unseen before: a list that lags
	ListedAt   time.Time // not in lists before, though found by id
	IPAt       time.Time
	ReadyAt    time.Time // end of the boot
	// NeverHealthy makes the end of the boot unhealthy instead of active.
	NeverHealthy bool
	// DiesAt is when the instance becomes DiesAs by itself.
	DiesAt time.Time
	DiesAs Status
	// RestartedAt and BusyUntil are the last restart.
	RestartedAt, BusyUntil time.Time

	StopCalledAt time.Time // the terminate call: the end of billing
	TerminatedAt time.Time
	GoneAt       time.Time

	GPUFault  string
	HostKeyAt time.Time // when the machine gets another host key
	HoldsSlot bool      // of a limited capacity

	host hostState
}

func reached(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

func (i *instance) status(now time.Time) Status {
	if !i.TerminatedAt.IsZero() { // a terminate call, or an end by itself in the past
		switch {
		case now.Before(i.TerminatedAt):
			return Terminating
		case now.Before(i.GoneAt):
			return Terminated
		default:
			return Gone
		}
	}
	if reached(i.DiesAt, now) {
		if i.DiesAs != Unhealthy && reached(i.GoneAt, now) {
			return Gone
		}
		return i.DiesAs
	}
	switch {
	case now.Before(i.ReadyAt):
		return Booting
	case i.NeverHealthy:
		return Unhealthy
	default:
		return Active
	}
}

// gone tells whether the API no longer knows the instance.
func (i *instance) gone(now time.Time) bool { return i.status(now) == Gone }

// running tells whether there is a machine behind it that is meant to stay.
func (i *instance) running(now time.Time) bool {
	switch i.status(now) {
	case Booting, Active, Unhealthy:
		return true
	default:
		return false
	}
}

// endedAt is when nothing more is billed; zero while it runs.
func (i *instance) endedAt(now time.Time) time.Time {
	died := time.Time{}
	if reached(i.DiesAt, now) && i.DiesAs != Unhealthy {
		died = i.DiesAt
	}
	switch {
	case i.StopCalledAt.IsZero():
		return died
	case died.IsZero() || i.StopCalledAt.Before(died):
		return i.StopCalledAt
	default:
		return died
	}
}

// firstHealthy is when the instance first was active; zero if it never was.
func (i *instance) firstHealthy(now time.Time) time.Time {
	if i.NeverHealthy || !reached(i.ReadyAt, now) {
		return time.Time{}
	}
	if !i.DiesAt.IsZero() && !i.ReadyAt.Before(i.DiesAt) {
		return time.Time{}
	}
	if end := i.endedAt(now); !end.IsZero() && !i.ReadyAt.Before(end) {
		return time.Time{}
	}
	return i.ReadyAt
}

// billedFrom is the start of billing; zero if there is nothing to bill.
func (i *instance) billedFrom(now time.Time, unhealthyFree bool) time.Time {
	if from := i.firstHealthy(now); !from.IsZero() || unhealthyFree {
		return from
	}
	from := time.Time{}
	switch {
	case reached(i.DiesAt, now) && i.DiesAs == Unhealthy && i.DiesAt.Before(i.ReadyAt):
		from = i.DiesAt
	case i.NeverHealthy && reached(i.ReadyAt, now):
		from = i.ReadyAt
	}
	if end := i.endedAt(now); !end.IsZero() && !from.Before(end) {
		return time.Time{}
	}
	return from
}

// BillLine is what one instance costs.
type BillLine struct {
	InstanceID        string    `json:"instance_id"`
	Name              string    `json:"name"`
	Type              string    `json:"type"`
	PriceCentsPerHour int64     `json:"price_cents_per_hour"`
	From              time.Time `json:"from,omitzero"` // zero while nothing is billed
	To                time.Time `json:"to"`            // the time of asking while it runs
	Running           bool      `json:"running"`
	Minutes           int64     `json:"minutes"` // begun minutes
	MicroDollars      int64     `json:"micro_dollars"`
}

// Bill is what Lambda would ask for: each instance by the minute, from its first
// healthy moment to the terminate call, begun minutes in full.
type Bill struct {
	At    time.Time  `json:"at"`
	Lines []BillLine `json:"lines"` // of all instances ever launched, oldest first
	Total int64      `json:"total_micro_dollars"`
}

func (i *instance) bill(now time.Time, unhealthyFree bool) BillLine {
	l := BillLine{InstanceID: i.ID, Name: i.Name, Type: i.Type.Name, PriceCentsPerHour: i.Type.PriceCentsPerHour}
	l.To = i.endedAt(now)
	if l.Running = l.To.IsZero(); l.Running {
		l.To = now
	}
	l.From = i.billedFrom(now, unhealthyFree)
	if l.From.IsZero() || !l.To.After(l.From) {
		return l
	}
	l.Minutes = int64((l.To.Sub(l.From) + time.Minute - 1) / time.Minute)
	l.MicroDollars = minutesCost(l.Minutes, l.PriceCentsPerHour)
	return l
}

// minutesCost is the cost of full minutes in micro-dollars, rounded up.
func minutesCost(minutes, centsPerHour int64) int64 {
	n := new(big.Int).Mul(big.NewInt(minutes), big.NewInt(centsPerHour))
	n.Mul(n, big.NewInt(10_000)).Add(n, big.NewInt(59)).Div(n, big.NewInt(60))
	return n.Int64()
}
