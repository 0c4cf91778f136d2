package tools

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// Question is put to the person behind a client, who may say yes to a request that
// waits for one.
type Question struct {
	About lease.ID // the request
	Asks  string   // who has asked for it: a principal
	Text  string   // for the person, the same as long as the request is
	Yes   string   // what a yes means, in some words
}

// Reply is what came back.
type Reply struct {
	Yes bool   // a person said so, as far as the client can be believed
	By  string // the client's name
	Why string // what came instead of a yes
}

// Asker asks the person behind the client of one call.
type Asker interface {
	// About is the request of the question that this call brings the answer to, "" for
	// none: a client without requests of ours to answer makes the same call again.
	About() lease.ID
	// Ask gives what came back when ctx ends at the latest. An error is not for the tool:
	// it ends its call so that the client asks and calls again.
	Ask(ctx context.Context, q Question) (Reply, error)
}

type askerKey struct{}

// WithAsker gives ctx an asker.
func WithAsker(ctx context.Context, a Asker) context.Context {
	return context.WithValue(ctx, askerKey{}, a)
}

// Asking is the call's asker, nil where nobody can be asked or the operator does not
// want it.
func Asking(ctx context.Context) Asker {
	a, _ := ctx.Value(askerKey{}).(Asker)
	return a
}

const (
	// askTime is how long an answer is waited for, in seconds: hosts give up on calls
	// that last for a minute.
	askTime = 30
	// approvedTime is how long the launch is waited for after a yes.
	approvedTime = 10
)

// byPerson puts a request that waits before the person behind the client, if there is
// one to be asked. Whatever comes but a yes leaves it waiting, with a warning; so does a
// yes to what is not there any more.
func byPerson(ctx context.Context, l interface {
	Reader
	Changer
}, waiting lease.Lease) (now lease.Lease, warning string, err error) {
	asker := Asking(ctx)
	if asker == nil || decided(waiting) {
		return waiting, "", nil
	}
	reply, err := putTo(ctx, l, asker, waiting)
	if err != nil {
		return waiting, "", err
	}
	now = waiting
	if reply.Yes && ctx.Err() == nil {
		by := fmt.Sprintf("elicitation (client %s, principal %s)", reply.By, waiting.Principal)
		if now, err = l.ApproveShown(ctx, waiting, by); err == nil {
			return launched(ctx, l, now), "", nil
		}
		reply.Why = "the yes came to nothing: " + Explain(err, nil).Message
	}
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTime)
	defer cancel()
	if seen, err := l.Get(brief, waiting.ID); err == nil {
		now = seen
	}
	if decided(now) && (!reply.Yes || !now.ApprovedAt.IsZero()) {
		return now, "", nil // somebody was faster, by another way
	}
	return now, "the person behind this client has not approved it here: " + reply.Why, nil
}

// putTo asks, and stops to ask as soon as somebody has decided by another way.
func putTo(ctx context.Context, l Reader, asker Asker, waiting lease.Lease) (Reply, error) {
	limit := Wait(ctx, askTime)
	ask, stop := context.WithTimeout(ctx, limit)
	defer stop()
	var elsewhere sync.WaitGroup
	defer elsewhere.Wait()
	defer stop()
	if asker.About() == "" {
		elsewhere.Go(func() {
			if now, err := l.Wait(ask, waiting.ID, limit, decided); err == nil && decided(now) {
				stop()
			}
		})
	}
	return asker.Ask(ask, questionOf(waiting))
}

// launched waits a little for what was approved.
func launched(ctx context.Context, l Reader, approved lease.Lease) lease.Lease {
	now, err := watch(ctx, l, approved.ID, approvedTime, func(l lease.Lease) bool {
		return l.State != lease.AwaitingApproval && l.State != lease.Launching
	})
	if err != nil {
		return approved
	}
	return now
}

// decided reports whether a request waits for nobody.
func decided(l lease.Lease) bool { return l.State != lease.AwaitingApproval || !l.ApprovedAt.IsZero() }

// questionOf is what a person is to decide about. The purpose is the agent's own text:
// it cannot look like a line of ours.
func questionOf(l lease.Lease) Question {
	region := l.AskedRegion
	if region == "" {
		region = "any region that the policy allows"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Launch this GPU machine? It costs money.\nmachine: %s in %s, %s/h\n", l.Type, region, l.Price)
	fmt.Fprintf(&b, "time: %d min once it is ready; worst case: %s\n", int(l.TTL/time.Minute), l.WorstCase())
	fmt.Fprintf(&b, "asked for by: %s; purpose: %s\n", l.Principal, quote(l.Purpose))
	fmt.Fprintf(&b, "request: %s, until %s; gpulease approve %s does the same", l.ID, clock(l.DecideBy), l.ID)
	return Question{About: l.ID, Asks: l.Principal, Text: b.String(), Yes: fmt.Sprintf("Launch it, for at most %s", l.WorstCase())}
}
