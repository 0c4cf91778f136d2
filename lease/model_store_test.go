package lease_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// edgeStore is the ledger as a process reaches it: it may die before or after each
// call, and the ledger may be out of order.
type edgeStore struct {
	lease.Store
	p *process
}

var errLedgerDown = errors.New("the disk of the ledger is full")

func (s *edgeStore) in(write bool) error {
	if err := s.p.step(); err != nil {
		return err
	}
	if s.p.w.ledgerFails(write) {
		return errLedgerDown
	}
	return nil
}

// through makes a call as it happens to a process.
func through[T any](s *edgeStore, write bool, do func() (T, error)) (T, error) {
	var zero T
	if err := s.in(write); err != nil {
		return zero, err
	}
	v, err := do()
	if dead := s.p.step(); dead != nil {
		return zero, dead
	}
	return v, err
}

func (s *edgeStore) Reserve(ctx context.Context, l lease.Lease, at time.Time, p lease.Periods, decide func(policy.Usage) policy.Decision) (lease.Reservation, error) {
	return through(s, true, func() (lease.Reservation, error) { return s.Store.Reserve(ctx, l, at, p, decide) })
}

func (s *edgeStore) Rereserve(ctx context.Context, l lease.Lease, at time.Time, p lease.Periods, note string, decide func(policy.Usage) policy.Decision) (lease.Lease, policy.Decision, error) {
	var d policy.Decision
	got, err := through(s, true, func() (got lease.Lease, err error) {
		got, d, err = s.Store.Rereserve(ctx, l, at, p, note, decide)
		return got, err
	})
	return got, d, err
}

func (s *edgeStore) Update(ctx context.Context, l lease.Lease, note string) (lease.Lease, error) {
	return through(s, true, func() (lease.Lease, error) { return s.Store.Update(ctx, l, note) })
}

func (s *edgeStore) Adopt(ctx context.Context, l lease.Lease, at time.Time, note string) (lease.Lease, error) {
	return through(s, true, func() (lease.Lease, error) { return s.Store.Adopt(ctx, l, at, note) })
}

func (s *edgeStore) Correct(ctx context.Context, id lease.ID, amount policy.Money, at time.Time, note string) error {
	_, err := through(s, true, func() (bool, error) { return true, s.Store.Correct(ctx, id, amount, at, note) })
	return err
}

func (s *edgeStore) Get(ctx context.Context, id lease.ID) (lease.Lease, error) {
	return through(s, false, func() (lease.Lease, error) { return s.Store.Get(ctx, id) })
}

func (s *edgeStore) ByKey(ctx context.Context, principal, key string) (lease.Lease, error) {
	return through(s, false, func() (lease.Lease, error) { return s.Store.ByKey(ctx, principal, key) })
}

func (s *edgeStore) Live(ctx context.Context) ([]lease.Lease, error) {
	return through(s, false, func() ([]lease.Lease, error) { return s.Store.Live(ctx) })
}

func (s *edgeStore) List(ctx context.Context, limit int) ([]lease.Lease, error) {
	return through(s, false, func() ([]lease.Lease, error) { return s.Store.List(ctx, limit) })
}

func (s *edgeStore) History(ctx context.Context, id lease.ID) ([]lease.Event, error) {
	return through(s, false, func() ([]lease.Event, error) { return s.Store.History(ctx, id) })
}

func (s *edgeStore) Freeze(ctx context.Context, f lease.Freeze) error {
	_, err := through(s, true, func() (bool, error) { return true, s.Store.Freeze(ctx, f) })
	return err
}

func (s *edgeStore) Sight(ctx context.Context, account string, at time.Time, seen []lease.Stranger) error {
	_, err := through(s, true, func() (bool, error) { return true, s.Store.Sight(ctx, account, at, seen) })
	return err
}

func (s *edgeStore) Touched(ctx context.Context, id lease.ID) (time.Time, error) {
	return through(s, false, func() (time.Time, error) { return s.Store.Touched(ctx, id) })
}

func (s *edgeStore) Beat(ctx context.Context, guard string, at time.Time) error {
	_, err := through(s, true, func() (bool, error) { return true, s.Store.Beat(ctx, guard, at) })
	return err
}

func (s *edgeStore) Guards(ctx context.Context) ([]lease.Guard, error) {
	return through(s, false, func() ([]lease.Guard, error) { return s.Store.Guards(ctx) })
}

// checkedStore is the one ledger of the world. What is written to it is looked at
// by the invariants. Heartbeats are kept in memory, and the list of the living is
// read anew only after a write: both would be most of the time of a sequence.
type checkedStore struct {
	*ledger.DB
	w *world

	write sync.Mutex // writes are looked at in their order, and before anybody can read them
	mu    sync.Mutex
	live  []lease.Lease // nil: to be read
	beats map[string]time.Time
}

func (s *checkedStore) changed() {
	s.mu.Lock()
	s.live = nil
	s.mu.Unlock()
}

func (s *checkedStore) Get(ctx context.Context, id lease.ID) (lease.Lease, error) {
	s.write.Lock()
	defer s.write.Unlock()
	return s.DB.Get(ctx, id)
}

func (s *checkedStore) ByKey(ctx context.Context, principal, key string) (lease.Lease, error) {
	s.write.Lock()
	defer s.write.Unlock()
	return s.DB.ByKey(ctx, principal, key)
}

func (s *checkedStore) Live(ctx context.Context) ([]lease.Lease, error) {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		live, err := s.DB.Live(ctx)
		if err != nil {
			return nil, err
		}
		s.live = append([]lease.Lease{}, live...)
	}
	return slices.Clone(s.live), nil
}

func (s *checkedStore) Beat(_ context.Context, guard string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats[guard] = at.UTC().Truncate(time.Millisecond)
	return nil
}

func (s *checkedStore) Guards(context.Context) ([]lease.Guard, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]lease.Guard, 0, len(s.beats))
	for name, at := range s.beats {
		out = append(out, lease.Guard{Name: name, Seen: at})
	}
	slices.SortFunc(out, func(a, b lease.Guard) int { return b.Seen.Compare(a.Seen) })
	return out, nil
}

func (s *checkedStore) Reserve(ctx context.Context, l lease.Lease, at time.Time, p lease.Periods, decide func(policy.Usage) policy.Decision) (lease.Reservation, error) {
	s.write.Lock()
	defer s.write.Unlock()
	res, err := s.DB.Reserve(ctx, l, at, p, decide)
	s.changed()
	switch v := res.Decision.Verdict; {
	case err != nil || res.Existing || v != policy.Allow && v != policy.Ask:
	default:
		s.w.wrote(lease.Lease{}, res.Lease, "reserved")
		s.w.reserved(ctx, res.Lease, at, p)
	}
	return res, err
}

func (s *checkedStore) Rereserve(ctx context.Context, l lease.Lease, at time.Time, p lease.Periods, note string, decide func(policy.Usage) policy.Decision) (lease.Lease, policy.Decision, error) {
	s.write.Lock()
	defer s.write.Unlock()
	was := s.w.row(l.ID)
	got, d, err := s.DB.Rereserve(ctx, l, at, p, note, decide)
	s.changed()
	if err == nil && d.Verdict == policy.Allow {
		s.w.wrote(was, got, note)
		s.w.reserved(ctx, got, at, p)
	}
	return got, d, err
}

func (s *checkedStore) Update(ctx context.Context, l lease.Lease, note string) (lease.Lease, error) {
	s.write.Lock()
	defer s.write.Unlock()
	was := s.w.row(l.ID)
	got, err := s.DB.Update(ctx, l, note)
	s.changed()
	if err == nil {
		s.w.wrote(was, got, note)
	}
	return got, err
}

func (s *checkedStore) Adopt(ctx context.Context, l lease.Lease, at time.Time, note string) (lease.Lease, error) {
	s.write.Lock()
	defer s.write.Unlock()
	got, err := s.DB.Adopt(ctx, l, at, note)
	s.changed()
	if err == nil {
		s.w.wrote(lease.Lease{}, got, note)
	}
	return got, err
}

func (s *checkedStore) Correct(ctx context.Context, id lease.ID, amount policy.Money, at time.Time, note string) error {
	s.write.Lock()
	defer s.write.Unlock()
	err := s.DB.Correct(ctx, id, amount, at, note)
	if err == nil {
		s.w.corrected(id, amount)
	}
	return err
}

func (s *checkedStore) Freeze(ctx context.Context, f lease.Freeze) error {
	s.write.Lock()
	defer s.write.Unlock()
	err := s.DB.Freeze(ctx, f)
	if err == nil {
		s.w.froze(f.On())
	}
	return err
}
