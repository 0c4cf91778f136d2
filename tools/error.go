package tools

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/gpulease/gpulease/lease"
)

// maxPart bounds each part of an error text: hosts cut the whole at some 11,000
// characters, from the end, where the next step stands.
const maxPart = 3000

// fallbackNext is the next step for errors that came without one: every error
// says what to do.
var fallbackNext = map[lease.Code]string{
	lease.CodePolicyDenied:      "call list_capacity to see what the policy allows",
	lease.CodeBudgetExceeded:    "call list_capacity to see what the budget affords, or stop_lease for a lease that is not needed",
	lease.CodeApprovalRequired:  "ask a person to run: gpulease approve",
	lease.CodeFrozen:            "ask a person to run: gpulease unfreeze",
	lease.CodeNoCapacity:        "call list_capacity for what is free now",
	lease.CodeQuotaExceeded:     "stop_lease for a lease that is not needed, or ask a person to raise the account's quota",
	lease.CodeAccountBlocked:    "ask a person to look at the account's billing page",
	lease.CodeBadAPIKey:         "ask a person to set LAMBDA_API_KEY",
	lease.CodeCloudUnavailable:  "call again in a minute",
	lease.CodeRateLimited:       "call again in a minute",
	lease.CodeLeaseNotFound:     "call list_leases",
	lease.CodeLeaseNotReady:     "call get_lease with wait_seconds until its state is ready",
	lease.CodeLeaseEnded:        "call launch_lease for a new one",
	lease.CodeJobNotFound:       "call get_lease for the jobs of the lease",
	lease.CodeSSHUnreachable:    "call get_lease, then call again",
	lease.CodeHostKeyMismatch:   "call stop_lease: the machine that answers is not the one that was leased",
	lease.CodeGPUUnhealthy:      "call stop_lease and launch_lease again",
	lease.CodeStopUnconfirmed:   "call stop_lease again until it is confirmed: money may still be spent",
	lease.CodeInvalidInput:      "mend the arguments and call again",
	lease.CodePathDenied:        "give a path below the directory in which the server was started",
	lease.CodeLedgerUnavailable: "ask a person to run: gpulease doctor",
	lease.CodeInternal:          "call list_leases to see where things stand before repeating anything that costs money",
}

// Explain turns any error into the one that the agent is shown, never nil.
// Errors that no one has explained become code internal; their text is shown
// only through redact, and not at all without one, since nobody has looked at
// what it may hold. redact is applied to every other text as well.
func Explain(err error, redact func(string) string) *lease.Error {
	var known *lease.Error
	var e lease.Error
	switch {
	case errors.As(err, &known) && known != nil:
		e = *known
	case errors.Is(err, context.DeadlineExceeded):
		e = *Unfinished("the call did not finish in time")
	case errors.Is(err, context.Canceled):
		e = *Unfinished("the call was cancelled")
	default:
		e = lease.Error{Code: lease.CodeInternal, Message: "something went wrong inside gpulease", Err: err}
		if redact != nil && err != nil {
			e.Why = err.Error()
		} else {
			e.Why = "the server's log has the cause"
		}
	}
	if e.Code == "" {
		e.Code = lease.CodeInternal
	}
	if e.Next == "" {
		e.Next = fallbackNext[e.Code]
	}
	if redact != nil {
		e.Message, e.Why, e.Next = redact(e.Message), redact(e.Why), redact(e.Next)
	}
	return &e
}

// Unfinished is the error of a call whose outcome is not known: what it began
// may still be going on.
func Unfinished(what string) *lease.Error {
	return &lease.Error{
		Code:      lease.CodeInternal,
		Message:   what,
		Why:       "what it began may still be going on",
		Next:      "call list_leases to see where things stand before repeating anything that costs money",
		Retryable: true,
	}
}

// Broken is the error for a tool that panicked. It says nothing of the cause,
// which may hold anything; that belongs into the log.
func Broken(tool string) *lease.Error {
	return &lease.Error{
		Code:    lease.CodeInternal,
		Message: tool + " stopped on a bug in gpulease",
		Why:     "the server's log has the cause; what the call began may be half done, and the ledger knows about it",
	}
}

// Render writes an error as the text of a tool result: what happened, why, the
// call to make, whether the same call may succeed later, and the lease.
func Render(e *lease.Error) string {
	var b strings.Builder
	b.WriteString("error " + string(e.Code) + ": " + flat(clip(e.Message, maxPart)))
	if e.Why != "" {
		b.WriteString("\nwhy: " + strings.TrimSpace(clip(e.Why, maxPart)))
	}
	if e.Next != "" {
		b.WriteString("\nnext: " + strings.TrimSpace(clip(e.Next, maxPart)))
	}
	retryable := "no"
	if e.Retryable {
		retryable = "yes"
	}
	b.WriteString("\nretryable: " + retryable)
	if e.LeaseID != "" {
		b.WriteString("\nlease: " + string(e.LeaseID))
	}
	return b.String()
}

// flat keeps the first line one line.
func flat(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// clip cuts s to at most n bytes, at a character's edge.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
