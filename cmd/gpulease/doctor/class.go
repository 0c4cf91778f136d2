package doctor

import (
	"errors"
	"fmt"

	"github.com/gpulease/gpulease/lambda"
)

// Class is whose business a finding is.
type Class string

// The classes.
const (
	Network  Class = "network"  // the way to Lambda and to the machines
	Auth     Class = "auth"     // the API key
	Billing  Class = "billing"  // the account's standing, and what it is charged for
	Quota    Class = "quota"    // Lambda's limits
	State    Class = "state"    // ledger, files, clock and guards on this computer, and leases
	Policy   Class = "policy"   // what the policy leaves to launch
	Capacity Class = "capacity" // what Lambda has free
)

// Classes are all classes, in the order in which failures are to be mended.
func Classes() []Class {
	return []Class{Network, Auth, Billing, Quota, State, Policy, Capacity}
}

// ExitCode is the class's own: 10 for network, and so on in the order of
// [Classes]. It is 1 for what is no class.
func (c Class) ExitCode() int {
	for i, known := range Classes() {
		if c == known {
			return 10 + i
		}
	}
	return 1
}

// ExitCodes says which exit code stands for which class.
func ExitCodes() string {
	text := "0 nothing failed"
	for _, c := range Classes() {
		text += fmt.Sprintf(", %d %s", c.ExitCode(), c)
	}
	return text
}

// Classify says whose business a failed call to Lambda is, and what mends it. A
// 403 that is not in Lambda's own words comes from the proxy in front of it and
// says nothing about the key.
func Classify(err error) (Class, string) {
	var e *lambda.Error
	if !errors.As(err, &e) {
		return Network, "check the network, and GPULEASE_API_URL"
	}
	switch {
	case lambda.IsRateLimited(err):
		return Quota, "wait a minute, and run gpulease doctor again; see whether something else uses the account's API"
	case lambda.IsBlocked(err):
		return Network, "the proxy in front of Lambda turned this computer away: try another network or without a VPN; the key is not the cause"
	case lambda.IsBadKey(err):
		return Auth, "make a key in the console (https://cloud.lambda.ai) and set LAMBDA_API_KEY to it"
	case e.Code == lambda.CodeForbidden:
		return Auth, "take a key of the workspace that you mean, from the console (https://cloud.lambda.ai)"
	case e.Code == lambda.CodeAccountInactive:
		return Billing, "verify the e-mail address and the payment method in the console (https://cloud.lambda.ai)"
	case e.Code == lambda.CodeInvalidAddress:
		return Billing, "correct the billing address in the console (https://cloud.lambda.ai)"
	case e.Code == lambda.CodeQuotaExceeded:
		return Quota, "ask Lambda's support for a higher quota"
	case e.Code == lambda.CodeInsufficientCapacity:
		return Capacity, "try again in a few minutes, or another type or region"
	case e.Status == 0:
		return Network, "check the network, and GPULEASE_API_URL"
	case e.Status == 404:
		return Network, "check GPULEASE_API_URL: there is no such API at that address"
	case lambda.IsRetryable(err):
		return Network, "try again in a minute, and look at Lambda's status page"
	}
	return Network, "check GPULEASE_API_URL and the network"
}
