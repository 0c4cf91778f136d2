package tools_test

import (
	"encoding/json"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/tools"
)

// nextOf checks the next step of an answer, and gives its sentence. The call that it
// names must be one that can be sent as it is: a tool that there is, and arguments
// that the tool takes.
func nextOf(t *testing.T, answer map[string]any) string {
	t.Helper()
	next, ok := answer["next"].(map[string]any)
	require.True(t, ok, "next is %v", answer["next"])
	text, _ := next["text"].(string)
	require.NotEmpty(t, text)
	name, _ := next["tool"].(string)
	if name == "" {
		require.NotContains(t, next, "arguments", "arguments of no tool")
		return text
	}
	takes, ok := inputs()[name]
	require.True(t, ok, "next names no tool: %s", name)
	given := map[string]any{}
	if a, ok := next["arguments"].(map[string]any); ok {
		given = a
	}
	raw, err := json.Marshal(given)
	require.NoError(t, err)
	require.NoError(t, schemaOf(t, takes).Validate(given), "next would call %s with %s", name, raw)
	return text
}

// inputs are the input schemas of all tools. They are made once: that takes far longer than a call.
var inputs = sync.OnceValue(func() map[string]json.RawMessage {
	of := map[string]json.RawMessage{}
	for _, tool := range tools.All(tools.Deps{}) {
		of[tool.Name] = tool.InputSchema
	}
	return of
})

// A tool that is left out is nobody's next call.
func TestNextNamesOnlyWhatIsServed(t *testing.T) {
	d := &desk{capacity: offers()}
	for name, tc := range map[string]struct {
		choice tools.Selection
		want   any
	}{
		"all":       {tools.Selection{}, "launch_lease"},
		"read-only": {tools.Selection{ReadOnly: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			chosen, err := tc.choice.Of(tools.All(tools.Deps{Leases: d}))
			require.NoError(t, err)
			require.Equal(t, "list_capacity", chosen[0].Name)
			r, err := chosen[0].Call(t.Context(), nil)
			require.NoError(t, err)
			var answer struct{ Next map[string]any }
			require.NoError(t, json.Unmarshal(r.Structured, &answer))
			require.Equal(t, tc.want, answer.Next["tool"])
			require.NotEmpty(t, answer.Next["text"])
		})
	}
}

func TestALowBudgetIsSaid(t *testing.T) {
	d := &desk{capacity: offers()}
	d.capacity.BudgetLeft = policy.Dollar
	got, _ := answer(t, d, "list_capacity", `{}`)
	require.Equal(t, []any{"budget low: the $1.00 that are left do not pay an hour of gpu_1x_a10"}, got["warnings"])
	d.capacity.BudgetLeft = 2 * policy.Dollar
	got, _ = answer(t, d, "list_capacity", `{}`)
	require.NotContains(t, got, "warnings")

	d.spend = func() (lease.Spending, error) {
		return lease.Spending{Caps: []policy.CapLeft{
			{Rule: "caps.per_day", Limit: 50 * policy.Dollar, Left: 4 * policy.Dollar}, {Rule: "caps.per_month", Limit: 300 * policy.Dollar, Left: 40 * policy.Dollar},
		}}, nil
	}
	got, _ = answer(t, d, "spend_report", `{}`)
	require.Equal(t, []any{"budget low: $4.00 of $50.00 are left under caps.per_day"}, got["warnings"])
}
