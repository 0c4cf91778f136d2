package lease

import (
	"errors"
	"fmt"
	"time"
)

// Code is a stable name for what went wrong, the same in every release.
type Code string

// The codes that agents and tests rely on.
const (
	CodePolicyDenied      Code = "policy_denied"
	CodeBudgetExceeded    Code = "budget_exceeded"
	CodeApprovalRequired  Code = "approval_required"
	CodeFrozen            Code = "frozen"
	CodeNoCapacity        Code = "no_capacity"
	CodeQuotaExceeded     Code = "quota_exceeded"
	CodeAccountBlocked    Code = "account_blocked"
	CodeBadAPIKey         Code = "bad_api_key"
	CodeCloudUnavailable  Code = "cloud_unavailable"
	CodeRateLimited       Code = "rate_limited"
	CodeLeaseNotFound     Code = "lease_not_found"
	CodeLeaseNotReady     Code = "lease_not_ready"
	CodeLeaseEnded        Code = "lease_ended"
	CodeJobNotFound       Code = "job_not_found"
	CodeSSHUnreachable    Code = "ssh_unreachable"
	CodeHostKeyMismatch   Code = "host_key_mismatch"
	CodeGPUUnhealthy      Code = "gpu_unhealthy"
	CodeStopUnconfirmed   Code = "stop_unconfirmed"
	CodeInvalidInput      Code = "invalid_input"
	CodePathDenied        Code = "path_denied"
	CodeLedgerUnavailable Code = "ledger_unavailable"
	CodeInternal          Code = "internal"
)

// Error is what the agent and the person are told. Message says what happened,
// Why the cause, Next the call to make; none of them holds a secret.
type Error struct {
	Code      Code
	Message   string
	Why       string
	Next      string
	Retryable bool
	LeaseID   ID
	Err       error // the cause, for logs and errors.Is
}

// Error gives code and message on one line.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.Why != "" {
		s += " (" + e.Why + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// of says which lease an error is about.
func (e *Error) of(id ID) *Error {
	e.LeaseID = id
	return e
}

// CodeOf is the code of the first [Error] in err's chain, or "" for none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func invalid(next, format string, args ...any) *Error {
	return &Error{Code: CodeInvalidInput, Message: fmt.Sprintf(format, args...), Next: next}
}

// ledgerError says that the ledger could not be used, or would not. With it
// nothing is launched.
func ledgerError(op string, err error) *Error {
	switch {
	case errors.Is(err, ErrFrozen):
		return &Error{Code: CodeFrozen, Message: "launches and extensions are frozen; nothing was launched or extended", Why: err.Error(), Next: "a person has to run: gpulease unfreeze", Err: err}
	case errors.Is(err, ErrClock):
		return &Error{
			Code: CodeLedgerUnavailable, Message: op + ": the time is behind what the ledger holds, so nothing was reserved", Why: err.Error(),
			Next: "check this computer's clock; launches go on when it is past the newest entry", Retryable: true, Err: err,
		}
	}
	return &Error{
		Code: CodeLedgerUnavailable, Message: op + ": the ledger could not be used", Why: err.Error(), Retryable: true,
		Next: "call again; if it stays, check GPULEASE_LEDGER: the file, its permissions and the free disk space, or that its server runs", Err: err,
	}
}

func notFound(id ID, err error) *Error {
	return &Error{
		Code: CodeLeaseNotFound, Message: fmt.Sprintf("there is no lease %q", id), LeaseID: id,
		Next: "list_leases shows the leases that there are", Err: err,
	}
}

func frozenError(f Freeze) *Error {
	why := fmt.Sprintf("frozen since %s by %s", f.At.Format(time.RFC3339), f.By)
	if f.Why != "" {
		why += ": " + f.Why
	}
	return &Error{Code: CodeFrozen, Message: "launches and extensions are frozen; nothing was launched or extended", Why: why, Next: "a person has to run: gpulease unfreeze", Err: ErrFrozen}
}
