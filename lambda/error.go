package lambda

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Op names a call in errors and logs.
type Op string

// The calls.
const (
	OpInstances             Op = "list instances"
	OpInstance              Op = "get instance"
	OpRenameInstance        Op = "rename instance"
	OpInstanceTypes         Op = "list instance types"
	OpLaunch                Op = "launch"
	OpRestart               Op = "restart"
	OpTerminate             Op = "terminate"
	OpSSHKeys               Op = "list ssh keys"
	OpAddSSHKey             Op = "add ssh key"
	OpGenerateSSHKey        Op = "generate ssh key"
	OpDeleteSSHKey          Op = "delete ssh key"
	OpFilesystems           Op = "list filesystems"
	OpCreateFilesystem      Op = "create filesystem"
	OpDeleteFilesystem      Op = "delete filesystem"
	OpImages                Op = "list images"
	OpRegions               Op = "list regions"
	OpFirewallRules         Op = "list firewall rules"
	OpSetFirewallRules      Op = "set firewall rules"
	OpFirewallRulesets      Op = "list firewall rulesets"
	OpFirewallRuleset       Op = "get firewall ruleset"
	OpCreateFirewallRuleset Op = "create firewall ruleset"
	OpUpdateFirewallRuleset Op = "update firewall ruleset"
	OpDeleteFirewallRuleset Op = "delete firewall ruleset"
	OpGlobalFirewallRuleset Op = "get global firewall ruleset"
	OpUpdateGlobalRuleset   Op = "update global firewall ruleset"
	OpAuditEvents           Op = "list audit events"
)

// Outcome is what a failed call may have changed. The zero value is the careful one.
type Outcome uint8

const (
	// MayHaveHappened: whether the change was made is not known.
	MayHaveHappened Outcome = iota
	// NothingHappened: it is proven that nothing was changed. Reads are always this.
	NothingHappened
)

func (o Outcome) String() string {
	if o == NothingHappened {
		return "nothing happened"
	}
	return "may have happened"
}

// Retry is whether the same request may succeed when it is sent again.
type Retry uint8

const (
	// RetryNever: not before the caller or the account's owner has changed something.
	RetryNever Retry = iota
	// RetryLater: it may. For a call that [MayHaveHappened], first find out whether it did.
	RetryLater
)

func (r Retry) String() string {
	if r == RetryLater {
		return "later"
	}
	return "never"
}

// Error is the error of every call. Its texts are bounded, free of control characters, and do not hold the key or the
// user data even when the service repeats them.
type Error struct {
	Op         Op
	Status     int    // HTTP status; 0 when there was no answer
	Code       Code   // "" when the answer was not Lambda's error envelope; CodeInvalidParameters with Status 0 is our own check
	Message    string // Lambda's explanation, or ours when there is none
	Suggestion string // Lambda's advice, often ""
	RequestID  string // the service's or the proxy's id of the request, for support; often ""
	Outcome    Outcome
	Retry      Retry
	RetryAfter time.Duration // how long the service asked to wait; 0 when it did not
	Err        error         // the cause, when there is one

	blocked blocked
	again   bool // the client itself may repeat a safe call
}

// blocked is what a page from the proxy in front of the API says.
type blocked uint8

const (
	notBlocked blocked = iota
	blockedClient
	blockedRate
)

// Error reads "op: status code: message".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Op))
	sep := ": "
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %d", e.Status)
		sep = " "
	}
	if e.Code != "" {
		b.WriteString(sep + string(e.Code))
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Outcome == MayHaveHappened {
		b.WriteString("; it may have happened")
	}
	if e.RequestID != "" {
		b.WriteString(" (request " + e.RequestID + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// LogValue gives the fields as a group.
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("op", string(e.Op)), slog.Int("status", e.Status), slog.String("code", string(e.Code)),
		slog.String("message", e.Message), slog.String("request_id", e.RequestID),
		slog.String("outcome", e.Outcome.String()), slog.String("retry", e.Retry.String()))
}

// IsCode says whether err is an [*Error] with one of the codes.
func IsCode(err error, codes ...Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code != "" && slices.Contains(codes, e.Code)
}

// IsNotFound says whether Lambda itself answered that the object does not exist. For an instance only 404 with
// [CodeObjectDoesNotExist] counts: [CodeNotFound] also answers a wrong base URL and proves nothing. A launch
// that names something unknown is not "not found": ask [IsCode].
func IsNotFound(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Status != 404 || e.Op == OpLaunch {
		return false
	}
	switch e.Code {
	case CodeObjectDoesNotExist:
		return true
	case CodeNotFound:
		return e.Op != OpInstance && e.Op != OpRenameInstance && e.Op != OpTerminate && e.Op != OpRestart
	}
	return false
}

// IsNothingHappened says whether err proves that nothing was changed. It is false for nil and for an error that is not an
// [*Error].
func IsNothingHappened(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Outcome == NothingHappened
}

// IsBadKey says whether Lambda itself refused the key.
func IsBadKey(err error) bool { return IsCode(err, CodeInvalidAPIKey) }

// IsRateLimited says whether there were too many requests: 429, or the proxy's page for it.
func IsRateLimited(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == 429 || e.blocked == blockedRate)
}

// IsBlocked says whether the proxy in front of the API turned the client away. It says nothing about the key.
func IsBlocked(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.blocked == blockedClient
}

// IsRetryable says whether the same request may succeed later.
func IsRetryable(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Retry == RetryLater
}
