package tools_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/tools"
)

// The page of the tools is made from the tools.
func TestToolReferenceIsUpToDate(t *testing.T) {
	const page = "../docs/tools.md"
	want := reference(t, tools.All(tools.Deps{}))
	if *update {
		require.NoError(t, os.WriteFile(page, want, 0o644))
	}
	got, err := os.ReadFile(page)
	require.NoError(t, err, "go test ./tools -update writes it")
	require.Equal(t, string(want), string(got), "go test ./tools -update writes it anew")
}

type schema struct {
	Type        any             `json:"type"`
	Description string          `json:"description"`
	Properties  json.RawMessage `json:"properties"`
	Required    []string        `json:"required"`
	Enum        []string        `json:"enum"`
	Minimum     *json.Number    `json:"minimum"`
	Maximum     *json.Number    `json:"maximum"`
	Default     any             `json:"default"`
	Items       *schema         `json:"items"`
}

func reference(t *testing.T, all []tools.Tool) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("# Tools\n\nGenerated from the tools themselves (`go test ./tools -update`); do not edit.\n\n" +
		"Answers about a lease also have its `instance_type`, `region`, `minutes_left` and `guard`; those about jobs and files its `price_usd_per_hour`,\n" +
		"`cost_usd`, `deadline`, `minutes_left` and `guard`. A job also has `cpu_seconds` and `peak_memory_mib` of all its processes,\n" +
		"`hanging_seconds` when it shows no sign of life for longer than its `idle_output_timeout`, and as `trouble` what the kernel and CUDA\n" +
		"said of GPUs and memory when it failed. A ready lease has as `machine` what its GPUs, processors, memory and disk do now, as far\n" +
		"as the machine tells, and as `gpu_use` how much its GPUs have worked. Where a job has printed `go test -json` or JUnit XML, the answer\n" +
		"that has its end has as `tests` how many passed, failed and were skipped, and the first failures. Secrets that gpulease knows (its API key, and values of variables with names such as\n" +
		"`HF_TOKEN` that calls of this server have set) are covered in output.\n")
	for _, tool := range all {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s\n", tool.Name, tool.Description, hints(tool.Annotations))
		table(t, &b, "argument", tool.InputSchema)
		table(t, &b, "answer", tool.OutputSchema)
	}
	b.WriteString(errorsSection)
	return b.Bytes()
}

const errorsSection = `
## Errors

An error is a tool result with ` + "`isError`" + ` and text only: ` + "`error CODE: what happened`" + `, then ` + "`why:`" + `, ` + "`next:`" + ` (the call to
make), ` + "`retryable:`" + ` and ` + "`lease:`" + ` where there is one. The codes are stable; they are listed in the package documentation of
` + "`lease`" + ` (` + "`go doc github.com/gpulease/gpulease/lease.Code`" + `).
`

func hints(a tools.Annotations) string {
	var said []string
	for _, h := range []struct {
		is   bool
		text string
	}{{a.ReadOnly, "changes nothing"}, {a.Destructive, "destructive"}, {a.Idempotent, "idempotent"}, {a.OpenWorld, "reaches the cloud or the machine"}} {
		if h.is {
			said = append(said, h.text)
		}
	}
	return "Hints: " + strings.Join(said, ", ") + "."
}

func table(t *testing.T, b *bytes.Buffer, what string, raw json.RawMessage) {
	t.Helper()
	var s schema
	require.NoError(t, json.Unmarshal(raw, &s))
	names := propertyNames(t, s.Properties)
	if len(names) == 0 {
		return
	}
	var fields map[string]schema
	require.NoError(t, json.Unmarshal(s.Properties, &fields))
	fmt.Fprintf(b, "\n| %s | type | |\n|---|---|---|\n", what)
	for _, n := range names {
		f := fields[n]
		var notes []string
		if slices.Contains(s.Required, n) && what == "argument" {
			notes = append(notes, "required")
		}
		if f.Description != "" {
			notes = append(notes, f.Description)
		}
		if len(f.Enum) > 0 {
			notes = append(notes, "One of "+strings.Join(f.Enum, ", ")+".")
		}
		if f.Minimum != nil && f.Maximum != nil {
			notes = append(notes, fmt.Sprintf("%s to %s.", *f.Minimum, *f.Maximum))
		}
		if f.Default != nil {
			notes = append(notes, fmt.Sprintf("Default %v.", f.Default))
		}
		typ := fmt.Sprint(f.Type)
		if f.Items != nil {
			typ += fmt.Sprintf(" of %v", f.Items.Type)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", n, typ, strings.ReplaceAll(strings.Join(notes, "; "), "|", "\\|"))
	}
}

// propertyNames are in the order of the properties as written: the one in which agents see
// them.
func propertyNames(t *testing.T, properties json.RawMessage) []string {
	t.Helper()
	if len(properties) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(properties))
	_, err := d.Token()
	require.NoError(t, err)
	var names []string
	for d.More() {
		name, err := d.Token()
		require.NoError(t, err)
		names = append(names, name.(string))
		var skip json.RawMessage
		require.NoError(t, d.Decode(&skip))
	}
	return names
}
