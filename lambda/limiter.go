package lambda

import (
	"context"
	"errors"
	"time"
)

// Class orders requests at a [Limiter]: a higher class goes first.
type Class uint8

// The classes, the least urgent first.
const (
	ClassRead      Class = iota // lists and gets
	ClassChange                 // every change but the two below
	ClassLaunch                 // launch
	ClassTerminate              // terminate
	classes
)

// String is the class in lower case.
func (c Class) String() string {
	switch c {
	case ClassRead:
		return "read"
	case ClassChange:
		return "change"
	case ClassLaunch:
		return "launch"
	case ClassTerminate:
		return "terminate"
	}
	return "unknown"
}

// Limiter says when a request may be sent. Wait returns nil when a request of the class may go now, once for each
// request; or an error, and then the request is not sent. It is called by several goroutines.
type Limiter interface {
	Wait(ctx context.Context, class Class) error
}

// ErrLimiter is in the chain of a call's error when its [Limiter] failed: nothing was sent, and it says nothing about the service.
var ErrLimiter = errors.New("the limiter let no request go")

// Throttled is what a [Limiter] may also have: it is told of an answer that there were too many requests, with the time
// that the service asked for, or 0.
type Throttled interface {
	Throttled(ctx context.Context, class Class, retryAfter time.Duration)
}

// NoLimit lets every request go at once.
var NoLimit Limiter = noLimit{}

type noLimit struct{}

func (noLimit) Wait(ctx context.Context, _ Class) error { return ctx.Err() }
