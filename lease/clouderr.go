package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/gpulease/gpulease/lambda"
)

// nothingHappened reports whether a failed changing call is proven to have
// changed nothing.
func nothingHappened(err error) bool {
	var e *lambda.Error
	return errors.As(err, &e) && e.Outcome == lambda.NothingHappened
}

// cloudError puts an error of the cloud into the words and codes of this
// package.
func cloudError(op string, id ID, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		e := *own
		e.LeaseID = id
		return &e
	}
	e := &Error{Code: CodeCloudUnavailable, Message: op + ": the cloud did not do it", Why: err.Error(), Retryable: true, Next: "call again in a minute", LeaseID: id, Err: err}
	var le *lambda.Error
	if !errors.As(err, &le) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e.Message = op + ": the cloud did not answer in time"
		}
		return e
	}
	set := func(c Code, retry bool, message, next string) {
		e.Code, e.Retryable, e.Message, e.Next = c, retry, fmt.Sprintf("%s: %s", op, message), next
	}
	switch {
	case errors.Is(err, lambda.ErrLimiter):
		// The rate limit that all processes share is in the ledger.
		unsent := ledgerError(op, err).of(id)
		if nothingHappened(err) { // an earlier attempt of the same call may have been sent
			unsent.Message += ", so nothing was sent to the cloud"
		}
		return unsent
	case lambda.IsCode(err, lambda.CodeInsufficientCapacity):
		set(CodeNoCapacity, true, "the cloud had none left after all", "call list_capacity and take another region or type, or try again in a few minutes")
	case lambda.IsCode(err, lambda.CodeQuotaExceeded):
		set(CodeQuotaExceeded, false, "the account's quota at Lambda is used up", "stop a lease, or have the quota raised by Lambda's support")
	case lambda.IsCode(err, lambda.CodeInvalidAPIKey):
		set(CodeBadAPIKey, false, "Lambda does not accept the API key", "set LAMBDA_API_KEY (or LAMBDA_API_KEY_COMMAND, LAMBDA_API_KEY_FILE) to a valid key and start the server again")
	case lambda.IsCode(err, lambda.CodeAccountInactive), lambda.IsCode(err, lambda.CodeInvalidAddress), lambda.IsCode(err, lambda.CodeForbidden):
		set(CodeAccountBlocked, false, "Lambda has blocked the account", "the owner of the account has to settle it in Lambda's console")
	case le.Status == 429:
		set(CodeRateLimited, true, "Lambda's rate limit is reached", "call again in a minute")
	case lambda.IsCode(err, lambda.CodeInvalidParameters), lambda.IsCode(err, lambda.CodeObjectDoesNotExist):
		set(CodeInvalidInput, false, "Lambda refused the request", "list_capacity shows what can be asked for")
	case le.Status == 0:
		e.Message, e.Next = op+": the cloud could not be reached, or did not answer", "call again in a minute; gpulease doctor says what is in the way"
	}
	return e
}
