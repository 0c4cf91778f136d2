package lease_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

func TestALowBudgetIsSaid(t *testing.T) {
	k := newKit(t, lambdatest.Config{})
	l := k.launch(lease.LaunchRequest{})
	l = k.untilState(l.ID, lease.Ready)
	said := func() string { return strings.Join(k.m.Status(t.Context(), l).Warnings, "\n") }
	require.NotContains(t, said(), "budget low")
	tight := k.policy.p.Clone()
	tight.Caps.PerDay = l.Reserved + policy.Cents(1)
	k.policy.p = tight
	require.Contains(t, said(), "budget low: $0.0")
}
