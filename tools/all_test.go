package tools_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/tools"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is a tool as it goes to the model. A change of it is a change of every
// user's prompt, so it has to show in a review.
func golden(t *testing.T, tool tools.Tool) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"name": tool.Name, "title": tool.Title, "description": tool.Description, "annotations": tool.Annotations,
		"alwaysLoad": tool.AlwaysLoad, "inputSchema": tool.InputSchema, "outputSchema": tool.OutputSchema,
	})
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, json.Indent(&b, raw, "", "  "))
	b.WriteByte('\n')
	return b.Bytes()
}

func TestToolsAreAsReviewed(t *testing.T) {
	names := map[string]bool{}
	for _, tool := range tools.All(tools.Deps{}) {
		names[tool.Name+".json"] = true
		path := filepath.Join("testdata", tool.Name+".json")
		got := golden(t, tool)
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(path, got, 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err, "go test ./tools -update writes it")
		require.Equal(t, string(want), string(got), "%s has changed; go test ./tools -update if that is meant", tool.Name)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	require.NoError(t, err)
	for _, f := range files {
		require.True(t, names[filepath.Base(f)], "%s belongs to no tool", f)
	}
}

func TestEveryToolFitsEveryHost(t *testing.T) {
	list := tools.All(tools.Deps{})
	require.LessOrEqual(t, len(list), 14)
	var heart []string
	for _, tool := range list {
		t.Run(tool.Name, func(t *testing.T) {
			require.Regexp(t, `^[a-z]+_[a-z]+$`, tool.Name, "verb_noun")
			require.NotEmpty(t, tool.Title)
			require.NotEmpty(t, tool.Description)
			require.LessOrEqual(t, len(tool.Description), 600)
			require.False(t, tool.Annotations.ReadOnly && tool.Annotations.Destructive)
			for kind, schema := range map[string]json.RawMessage{"input": tool.InputSchema, "output": tool.OutputSchema} {
				var root struct {
					Type       string         `json:"type"`
					Properties map[string]any `json:"properties"`
				}
				require.NoError(t, json.Unmarshal(schema, &root))
				require.Equal(t, "object", root.Type, kind)
				require.NotEmpty(t, root.Properties, kind)
				for _, word := range []string{`"$ref"`, `"$defs"`, `"$id"`, `"$schema"`} {
					require.NotContains(t, string(schema), word, kind)
				}
				for name := range root.Properties {
					require.Regexp(t, `^[a-z][a-z0-9_]*$`, name)
				}
			}
			var out struct {
				Required   []string       `json:"required"`
				Properties map[string]any `json:"properties"`
			}
			require.NoError(t, json.Unmarshal(tool.OutputSchema, &out))
			require.Contains(t, out.Required, "next", "every answer says what comes next")
			require.Contains(t, out.Properties, "warnings")
			require.Contains(t, out.Properties, "budget_left_usd")
			require.Contains(t, string(tool.InputSchema), `"additionalProperties":false`)
		})
		if tool.AlwaysLoad {
			heart = append(heart, tool.Name)
		}
	}
	require.Equal(t, []string{"list_capacity", "launch_lease", "run_command", "stop_lease"}, heart)
}

// What the model is told of an argument is one or two short sentences.
func TestArgumentsAreDescribedShortly(t *testing.T) {
	for _, tool := range tools.All(tools.Deps{}) {
		var in struct {
			Properties map[string]struct {
				Description string `json:"description"`
			} `json:"properties"`
		}
		require.NoError(t, json.Unmarshal(tool.InputSchema, &in))
		for name, p := range in.Properties {
			require.LessOrEqual(t, len(p.Description), 120, "%s.%s", tool.Name, name)
		}
	}
}

// Texts for the model are plain: no word that a later rename would miss.
func TestTextsNameOnlyToolsThatExist(t *testing.T) {
	known := map[string]bool{}
	list := tools.All(tools.Deps{})
	for _, tool := range list {
		known[tool.Name] = true
	}
	mention := regexp.MustCompile(`\b(?:list|launch|run|stop|get|read|cancel|sync|extend|fetch|forward)_[a-z]+\b`)
	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, name := range mention.FindAllString(string(text), -1) {
			require.True(t, known[name], "%s speaks of %s", path, name)
		}
	}
}
