package tools_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

func TestRender(t *testing.T) {
	require.Equal(t, strings.Join([]string{
		"error policy_denied: gpu_8x_h100 costs $23.92/h",
		"why: max_price is $10.00/h in policy.yaml:4",
		"next: call launch_lease with instance_type gpu_1x_h100",
		"retryable: no",
		"lease: abcdefghijkl",
	}, "\n"), tools.Render(&lease.Error{
		Code: lease.CodePolicyDenied, Message: "gpu_8x_h100 costs $23.92/h", Why: "max_price is $10.00/h in policy.yaml:4",
		Next: "call launch_lease with instance_type gpu_1x_h100", LeaseID: "abcdefghijkl",
	}))
	require.Equal(t, "error rate_limited: too many calls\nretryable: yes",
		tools.Render(&lease.Error{Code: lease.CodeRateLimited, Message: "too\nmany calls", Retryable: true}))

	long := tools.Render(&lease.Error{Code: lease.CodeInternal, Message: strings.Repeat("é", 9000), Why: strings.Repeat("w", 9000), Next: "the next step"})
	require.Less(t, len(long), 10_000, "hosts cut at 11,000 characters")
	require.Contains(t, long, "\nnext: the next step\n")
	require.True(t, strings.HasPrefix(long, "error internal: éé"))
	require.NotContains(t, long, "\uFFFD")
}

func TestExplain(t *testing.T) {
	redact := func(s string) string { return strings.ReplaceAll(s, "hunter2", "[redacted]") }
	denied := &lease.Error{Code: lease.CodePolicyDenied, Message: "no hunter2", Next: "next hunter2"}
	for name, tc := range map[string]struct {
		err    error
		redact func(string) string
		want   string
	}{
		"wrapped": {fmt.Errorf("launch: %w", denied), redact, "error policy_denied: no [redacted]\nnext: next [redacted]\nretryable: no"},
		"with a fallback for the next step": {
			&lease.Error{Code: lease.CodeLeaseNotFound, Message: "there is no such lease"}, nil,
			"error lease_not_found: there is no such lease\nnext: call list_leases\nretryable: no",
		},
		"deadline": {
			fmt.Errorf("wait: %w", context.DeadlineExceeded), nil,
			"error internal: the call did not finish in time\nwhy: what it began may still be going on\n" +
				"next: call list_leases to see where things stand before repeating anything that costs money\nretryable: yes",
		},
		"cancelled": {
			context.Canceled, nil,
			"error internal: the call was cancelled\nwhy: what it began may still be going on\n" +
				"next: call list_leases to see where things stand before repeating anything that costs money\nretryable: yes",
		},
		"unknown, with a redactor": {
			errors.New("dial with hunter2"), redact,
			"error internal: something went wrong inside gpulease\nwhy: dial with [redacted]\n" +
				"next: call list_leases to see where things stand before repeating anything that costs money\nretryable: no",
		},
		"unknown, without one": {
			errors.New("dial with hunter2"), nil,
			"error internal: something went wrong inside gpulease\nwhy: the server's log has the cause\n" +
				"next: call list_leases to see where things stand before repeating anything that costs money\nretryable: no",
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, tools.Render(tools.Explain(tc.err, tc.redact)))
		})
	}
	require.Equal(t, "no hunter2", denied.Message, "the error itself was changed")
}

// Every error says what to do next, whoever raised it.
func TestEveryCodeHasANextStep(t *testing.T) {
	for _, code := range []lease.Code{
		lease.CodePolicyDenied, lease.CodeBudgetExceeded, lease.CodeApprovalRequired, lease.CodeFrozen, lease.CodeNoCapacity,
		lease.CodeQuotaExceeded, lease.CodeAccountBlocked, lease.CodeBadAPIKey, lease.CodeCloudUnavailable, lease.CodeRateLimited,
		lease.CodeLeaseNotFound, lease.CodeLeaseNotReady, lease.CodeLeaseEnded, lease.CodeJobNotFound, lease.CodeSSHUnreachable,
		lease.CodeHostKeyMismatch, lease.CodeGPUUnhealthy, lease.CodeStopUnconfirmed, lease.CodeInvalidInput, lease.CodePathDenied,
		lease.CodeLedgerUnavailable, lease.CodeInternal,
	} {
		require.NotEmpty(t, tools.Explain(&lease.Error{Code: code}, nil).Next, "code %s", code)
	}
}
