package tools

import (
	"context"
	"time"
)

type callIDKey struct{}

// WithCallID gives ctx the host's own identifier of the call.
func WithCallID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, callIDKey{}, id)
}

// CallID is the host's own identifier of the call, the same when the host sends
// the call again, or "". A call that costs money uses it as its idempotency key
// where the agent gave none.
func CallID(ctx context.Context) string {
	id, _ := ctx.Value(callIDKey{}).(string)
	return id
}

// answerTime is kept free of waiting, for writing the answer.
const answerTime = time.Second

// Wait is how long a handler that was asked to wait for some seconds may wait:
// not longer than its context lasts, less the time to answer, and never less
// than zero. So a wait ends as an answer and not as a timeout.
func Wait(ctx context.Context, seconds int) time.Duration {
	d := time.Duration(max(seconds, 0)) * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(deadline)-answerTime)
	}
	return max(d, 0)
}
