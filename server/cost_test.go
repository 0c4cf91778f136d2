package server_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tiktoken-go/tokenizer"

	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// Every tool is sent to the model with every request, for ever. The heart are
// the four tools without which nothing works.
func TestToolsListIsCheap(t *testing.T) {
	codec, err := tokenizer.Get(tokenizer.O200kBase)
	require.NoError(t, err)
	tokens := func(text []byte) int {
		ids, _, err := codec.Encode(string(text))
		require.NoError(t, err)
		return len(ids)
	}
	s, err := server.New(server.Config{Name: "gpulease", Version: "1", Tools: tools.All(tools.Deps{})})
	require.NoError(t, err)
	var list struct {
		Tools []json.RawMessage `json:"tools"`
	}
	result := ask(t, s, "tools/list", map[string]any{}).Result
	require.NoError(t, json.Unmarshal(result, &list))
	heart := 0
	for _, raw := range list.Tools {
		var tool struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Input       json.RawMessage `json:"inputSchema"`
			Output      json.RawMessage `json:"outputSchema"`
			Meta        map[string]any  `json:"_meta"`
		}
		require.NoError(t, json.Unmarshal(raw, &tool))
		n := tokens(raw)
		t.Logf("%-14s %4d tokens (description %d, input %d, output %d)", tool.Name, n, tokens([]byte(tool.Description)), tokens(tool.Input), tokens(tool.Output))
		if tool.Meta["anthropic/alwaysLoad"] == true {
			heart += n
		}
	}
	all := tokens(result)
	t.Logf("tools/list %d tokens, its heart %d", all, heart)
	require.Less(t, all, 4500)
	require.Less(t, heart, 1500)
}
