package policy

import (
	"fmt"
	"strings"
)

// Code is the error code of the decision as a whole: "" for Allow, approval_required for Ask, and for Deny budget_exceeded when
// only caps deny it, else policy_denied.
func (d Decision) Code() string {
	switch d.Verdict {
	case Allow:
		return ""
	case Ask:
		return CodeApprovalRequired
	}
	for _, v := range d.Violations {
		if v.Code != CodeBudgetExceeded {
			return CodePolicyDenied
		}
	}
	if len(d.Violations) == 0 {
		return CodePolicyDenied
	}
	return CodeBudgetExceeded
}

// Err is nil for Allow and a *RefusedError otherwise, for Ask too.
func (d Decision) Err() error {
	if d.Verdict == Allow {
		return nil
	}
	return &RefusedError{Decision: d}
}

// RefusedError is a decision that is not Allow, as an error.
type RefusedError struct{ Decision Decision }

func (e *RefusedError) Error() string { return e.Decision.Explain() }

// Explain is the decision as people and agents read it, several lines without a final newline: each rule that refuses, its
// value and where it is set, then the nearest request that passes.
func (d Decision) Explain() string {
	var b strings.Builder
	switch d.Verdict {
	case Allow:
		fmt.Fprintf(&b, "allowed: worst case %s", d.WorstCase)
		if d.BudgetLeft < Unlimited {
			fmt.Fprintf(&b, " of the %s left", d.BudgetLeft)
		}
		return b.String()
	case Ask:
		fmt.Fprintf(&b, "approval needed: worst case %s is above %s", d.WorstCase, d.ApprovalRule)
		if d.Nearest != nil {
			fmt.Fprintf(&b, "\nwithout approval: %s", d.Nearest)
		}
		return b.String()
	}
	for _, v := range d.Violations {
		fmt.Fprintf(&b, "denied by %s: %s (set in: %s)\n", v.Rule, v.Message, v.Source)
	}
	if d.Nearest == nil {
		b.WriteString("nearest request that passes: none now")
	} else {
		fmt.Fprintf(&b, "nearest request that passes%s: %s", d.Nearest.condition(), d.Nearest)
	}
	return b.String()
}

// String is the request in one line: "gpu_1x_a10 in us-east-1 for 2h, worst case $1.66 (why)".
func (n *Nearest) String() string {
	if n == nil {
		return "none"
	}
	where := n.Type
	if n.Region != "" {
		where += " in " + n.Region
	}
	return fmt.Sprintf("%s for %s, worst case %s (%s)", where, span(n.TTL), n.WorstCase, n.Why)
}

// condition says on what the nearest request would pass.
func (n *Nearest) condition() string {
	if n.Approval {
		return " with approval"
	}
	return ""
}
