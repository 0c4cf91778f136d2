package policy

import (
	"time"
)

// Verdict is the outcome of a decision.
type Verdict string

// The three outcomes.
const (
	Allow Verdict = "allow" // may be launched at once
	Ask   Verdict = "ask"   // no rule denies it, but a person has to approve it first
	Deny  Verdict = "deny"  // at least one rule denies it
)

// The codes of violations, and of decisions as a whole ([Decision.Code]). They are the error codes that tools report.
const (
	CodePolicyDenied     = "policy_denied"
	CodeBudgetExceeded   = "budget_exceeded"
	CodeApprovalRequired = "approval_required"
)

// Violation is one rule that denies a request.
type Violation struct {
	Rule    string // the key in the policy file: "caps.per_day", "principals.ci.max_ttl"
	Code    string // CodePolicyDenied or CodeBudgetExceeded
	Limit   string // the rule's value: "$50.00", "8h", "deny gpu_8x_*"
	Asked   string // what the request comes to under this rule
	Source  string // where the rule is set: "/path/policy.yaml:12", "default", "flag --x", "env X", "built in"
	Message string // one sentence that says it all but the source
}

// CapLeft is a money cap that applies, and what is left under it before the request.
type CapLeft struct {
	Rule   string // "caps.per_day", "principals.ci.caps.per_month"; "caps.burn_per_hour" is dollars per hour
	Limit  Money
	Used   Money // 0 for caps.per_lease
	Left   Money // never below 0
	Source string
}

// Nearest is the request closest to the one refused that would pass now.
type Nearest struct {
	Type      string
	Region    string
	TTL       time.Duration // whole minutes, unless it is the TTL asked for
	WorstCase Money
	Approval  bool   // a person would have to approve it
	Why       string // what differs from the request, and whether it needs approval
}

// Decision is what [Evaluate] says about a request.
type Decision struct {
	Verdict    Verdict
	WorstCase  Money       // what the request reserves
	Violations []Violation // every rule that denies, the account's first; empty unless Verdict is Deny
	Caps       []CapLeft   // every money cap that applies, whatever the verdict

	// BudgetLeft is the smallest Left over the caps per day, week, month and lifetime, before this request (caps.per_lease is
	// no budget and caps.burn_per_hour is a rate, so neither counts). Unlimited where no such cap is set.
	BudgetLeft Money

	// LongestTTL is the longest TTL, in whole minutes, with which this type in this region is not denied now; 0 is none.
	LongestTTL time.Duration

	// Nearest is, for Deny, the nearest request that is not denied, and for Ask the longest TTL that needs no approval; nil
	// where there is none, and for Allow.
	Nearest *Nearest

	ApprovalRule string // for Ask: the rule with its value and source; "" otherwise
	PolicyHash   string // Policy.Hash of the policy that decided
}
