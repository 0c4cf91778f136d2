package tools

import (
	"context"
	"time"

	"github.com/gpulease/gpulease/lease"
)

type extendIn struct {
	LeaseID lease.ID `json:"lease_id"`
	Minutes int      `json:"minutes" jsonschema:"minimum=1,maximum=525600"`
}

type extendOut struct {
	standing
	TTLMinutes int `json:"ttl_minutes"`
	advice
}

func extendLease(l interface {
	Reader
	Changer
}) Tool {
	return New(Def{
		Name:        "extend_lease",
		Title:       "Extend a lease",
		Description: "Moves a lease's deadline by some minutes. COSTS MONEY: policy and budget decide again, and the worst case is reserved.",
		Annotations: Annotations{OpenWorld: true},
	}, func(ctx context.Context, in extendIn) (extendOut, error) {
		x := lease.Extension{More: time.Duration(in.Minutes) * time.Minute}
		if CallID(ctx) != "" {
			x.Call = "call " + CallID(ctx)
		}
		got, err := l.Extend(ctx, in.LeaseID, x)
		if err != nil {
			return extendOut{}, ofLease(err, in.LeaseID)
		}
		s := status(ctx, l, got)
		return extendOut{standing: standingOf(s), TTLMinutes: int(got.TTL / time.Minute), advice: adviceOf(s, nextFor(got))}, nil
	})
}

// Text is the lease in a line.
func (o extendOut) Text() string { return o.line() + o.lines() }
