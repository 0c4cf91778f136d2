package tools_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

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
	for _, tool := range tools.All(tools.Deps{}) {
		if tool.Name != name {
			continue
		}
		given := map[string]any{}
		if a, ok := next["arguments"].(map[string]any); ok {
			given = a
		}
		raw, err := json.Marshal(given)
		require.NoError(t, err)
		require.NoError(t, schemaOf(t, tool.InputSchema).Validate(given), "next would call %s with %s", name, raw)
		return text
	}
	require.FailNow(t, "next names no tool", name)
	return ""
}
