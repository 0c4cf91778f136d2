package lambda

import "strings"

// Code is Lambda's name for a kind of error. Codes that are not listed here are kept as they came.
type Code string

// The codes of the OpenAPI document 1.10.0, and the older ones that may still be met (at the end).
const (
	CodeInvalidAPIKey         Code = "global/invalid-api-key"
	CodeAccountInactive       Code = "global/account-inactive"
	CodeForbidden             Code = "global/forbidden"
	CodeInvalidAddress        Code = "global/invalid-address" // the billing address
	CodeInvalidParameters     Code = "global/invalid-parameters"
	CodeQuotaExceeded         Code = "global/quota-exceeded"
	CodeDuplicate             Code = "global/duplicate"
	CodeObjectDoesNotExist    Code = "global/object-does-not-exist"
	CodeNotFound              Code = "global/not-found" // also an unknown path
	CodeConflict              Code = "global/conflict"
	CodeInternalError         Code = "global/internal-error"
	CodeInsufficientCapacity  Code = "instance-operations/launch/insufficient-capacity"
	CodeFileSystemWrongRegion Code = "instance-operations/launch/file-system-in-wrong-region"
	CodeFilesystemInUse       Code = "filesystems/filesystem-in-use"
	CodeFirewallRulesetInUse  Code = "firewall-rulesets/firewall-ruleset-in-use"
	CodeProviderUnavailable   Code = "provider/internal-unavailable"

	CodeUnknown                 Code = "global/unknown"
	CodeSSHKeyInUse             Code = "ssh-keys/key-in-use"
	CodeFileSystemsNotSupported Code = "instance-operations/launch/file-systems-not-supported"
)

// IsProvider says whether the error comes from a provider behind Lambda ("provider/…"). Such errors pass.
func (c Code) IsProvider() bool { return strings.HasPrefix(string(c), "provider/") }

// passes says whether the same request may succeed later without a change by the caller.
func (c Code) passes() bool {
	switch c {
	case CodeInsufficientCapacity, CodeConflict, CodeInternalError, CodeUnknown,
		CodeFilesystemInUse, CodeFirewallRulesetInUse, CodeSSHKeyInUse:
		return true
	}
	return c.IsProvider()
}
