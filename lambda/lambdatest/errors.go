package lambdatest

import (
	"fmt"
	"net/http"
)

// The error codes of Lambda's API.
const (
	CodeInvalidKey        = "global/invalid-api-key"
	CodeAccountInactive   = "global/account-inactive"
	CodeForbidden         = "global/forbidden"
	CodeInvalidAddress    = "global/invalid-address"
	CodeInvalidParameters = "global/invalid-parameters"
	CodeQuotaExceeded     = "global/quota-exceeded"
	CodeDuplicate         = "global/duplicate"
	CodeDoesNotExist      = "global/object-does-not-exist"
	CodeNotFound          = "global/not-found"
	CodeConflict          = "global/conflict"
	CodeInternal          = "global/internal-error"
	CodeNoCapacity        = "instance-operations/launch/insufficient-capacity"
	CodeWrongRegion       = "instance-operations/launch/file-system-in-wrong-region"
	CodeFilesystemInUse   = "filesystems/filesystem-in-use"
	CodeRulesetInUse      = "firewall-rulesets/firewall-ruleset-in-use"
	CodeProvider          = "provider/internal-unavailable"
	CodeUnknown           = "global/unknown"      // of the API before 1.6
	CodeRateLimited       = "global/rate-limited" // made up: the real body of a 429 is not documented
)

type catalogued struct {
	status              int
	message, suggestion string
}

var errorCatalogue = map[string]catalogued{
	CodeInvalidKey: {http.StatusUnauthorized, "API key was invalid, expired, or deleted.",
		"Check your API key or create a new one, then try again."},
	CodeAccountInactive: {http.StatusForbidden, "Your account is inactive.",
		"Make sure you have verified your email address and have a valid payment method. Contact Support if problems continue."},
	CodeForbidden: {http.StatusForbidden, "You do not have permission to do this.", ""},
	CodeInvalidAddress: {http.StatusForbidden, "Your billing address is invalid.",
		"Make sure your billing address is valid. Contact Support if problems continue."},
	CodeInvalidParameters: {http.StatusBadRequest, "Invalid request data.", ""},
	CodeQuotaExceeded:     {http.StatusBadRequest, "Quota exceeded.", "Contact Support to increase your quota."},
	CodeDuplicate:         {http.StatusBadRequest, "An object of this name exists.", ""},
	CodeDoesNotExist:      {http.StatusNotFound, "Specified object does not exist.", "Check the name or ID and try again."},
	CodeNotFound:          {http.StatusNotFound, "The requested resource was not found.", ""},
	CodeConflict:          {http.StatusConflict, "The request conflicts with the current state of the resource.", ""},
	CodeInternal: {http.StatusInternalServerError, "An internal server error occurred.",
		"Try again later. Contact Support if the problem persists."},
	CodeNoCapacity: {http.StatusBadRequest, "Not enough capacity to fulfill launch request.",
		"Choose an instance type with more availability, or try again later."},
	CodeWrongRegion:     {http.StatusBadRequest, "The filesystem is not in the region of the instance.", ""},
	CodeFilesystemInUse: {http.StatusBadRequest, "The filesystem is mounted to an instance.", ""},
	CodeRulesetInUse: {http.StatusBadRequest, "Firewall ruleset is in use by one or more instances.",
		"Terminate all instances that are using the ruleset before deleting it."},
	CodeProvider:    {http.StatusServiceUnavailable, "Provider unavailable", "Try again shortly"},
	CodeUnknown:     {http.StatusBadRequest, "An unknown error occurred.", ""},
	CodeRateLimited: {http.StatusTooManyRequests, "Too many requests.", "Wait and try again."},
}

// apiError is an error answer in Lambda's envelope.
type apiError struct {
	Status     int    `json:"-"`
	Code       string `json:"code"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message) }

// fault is the catalogued answer for a code.
func refuse(code string) *apiError {
	c, ok := errorCatalogue[code]
	if !ok {
		c = catalogued{http.StatusInternalServerError, "An error occurred.", ""}
	}
	return &apiError{Status: c.status, Code: code, Message: c.message, Suggestion: c.suggestion}
}

func refusef(code, format string, args ...any) *apiError {
	e := refuse(code)
	e.Message = fmt.Sprintf(format, args...)
	return e
}

func noInstance() *apiError {
	e := refusef(CodeDoesNotExist, "Specified instance does not exist.")
	e.Suggestion = ""
	return e
}

func noRuleset() *apiError {
	e := refusef(CodeDoesNotExist, "Firewall ruleset does not exist or you do not have permission to access it.")
	e.Suggestion = "Check your firewall ruleset ID and try again."
	return e
}
