package lease

import (
	"context"
	"time"

	"github.com/gpulease/gpulease/policy"
)

// BrokenStore is the store of a process whose ledger cannot be used: every
// method fails with err, so nothing is ever launched with it.
func BrokenStore(err error) Store { return brokenStore{err} }

type brokenStore struct{ err error }

func (b brokenStore) LedgerID(context.Context) (string, error) { return "", b.err }

func (b brokenStore) Reserve(context.Context, Lease, time.Time, Periods, func(policy.Usage) policy.Decision) (Reservation, error) {
	return Reservation{}, b.err
}

func (b brokenStore) Rereserve(context.Context, Lease, time.Time, Periods, string, func(policy.Usage) policy.Decision) (Lease, policy.Decision, error) {
	return Lease{}, policy.Decision{}, b.err
}
func (b brokenStore) Update(context.Context, Lease, string) (Lease, error) { return Lease{}, b.err }
func (b brokenStore) Get(context.Context, ID) (Lease, error)               { return Lease{}, b.err }
func (b brokenStore) ByKey(context.Context, string, string) (Lease, error) { return Lease{}, b.err }
func (b brokenStore) Live(context.Context) ([]Lease, error)                { return nil, b.err }
func (b brokenStore) List(context.Context, int) ([]Lease, error)           { return nil, b.err }
func (b brokenStore) Usage(context.Context, string, time.Time, Periods) (policy.Usage, error) {
	return policy.Usage{}, b.err
}
func (b brokenStore) Correct(context.Context, ID, policy.Money, time.Time, string) error {
	return b.err
}
func (b brokenStore) History(context.Context, ID) ([]Event, error)  { return nil, b.err }
func (b brokenStore) Beat(context.Context, string, time.Time) error { return b.err }
func (b brokenStore) Guards(context.Context) ([]Guard, error)       { return nil, b.err }

func (b brokenStore) Adopt(context.Context, Lease, time.Time, string) (Lease, error) {
	return Lease{}, b.err
}
func (b brokenStore) Freeze(context.Context, Freeze) error           { return b.err }
func (b brokenStore) Frozen(context.Context) (Freeze, error)         { return Freeze{}, b.err }
func (b brokenStore) Sighted(context.Context) ([]Stranger, error)    { return nil, b.err }
func (b brokenStore) Touch(context.Context, ID, time.Time) error     { return b.err }
func (b brokenStore) Touched(context.Context, ID) (time.Time, error) { return time.Time{}, b.err }
func (b brokenStore) Sight(context.Context, string, time.Time, []Stranger) error {
	return b.err
}
