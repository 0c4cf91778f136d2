package tools_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

// schemaOf reads a schema with another library than the one that the tools check
// with: what both take, clients take.
func schemaOf(t *testing.T, raw json.RawMessage) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	require.NoError(t, json.Unmarshal(raw, &s))
	resolved, err := s.Resolve(&jsonschema.ResolveOptions{})
	require.NoError(t, err)
	return resolved
}

// Clients read the schemas by the default dialect of the protocol.
func TestSchemasAreOfTheDialect202012(t *testing.T) {
	for _, tool := range tools.All(tools.Deps{}) {
		for kind, raw := range map[string]json.RawMessage{"input": tool.InputSchema, "output": tool.OutputSchema} {
			doc, err := validator.UnmarshalJSON(bytes.NewReader(raw))
			require.NoError(t, err)
			c := validator.NewCompiler()
			c.DefaultDraft(validator.Draft2020)
			require.NoError(t, c.AddResource("schema.json", doc))
			_, err = c.Compile("schema.json") // checks it against the dialect's own schema
			require.NoError(t, err, "%s %s", tool.Name, kind)
			schemaOf(t, raw)
		}
	}
}

// hostile is a desk of which every text and every list is too long.
func hostile() *desk {
	long := strings.Repeat("<\x01\n\"é\xff", 3000)
	row := ready()
	row.Detail, row.Purpose, row.Rescue = long, long, long
	many := make([]lease.Lease, 500)
	for i := range many {
		many[i] = row
		many[i].ID = lease.ID(fmt.Sprintf("lease%07d", i))
	}
	d := &desk{row: row}
	for i := range 100 {
		d.warnings = append(d.warnings, fmt.Sprint(i)+long)
		d.notices = append(d.notices, fmt.Sprint(i)+long)
		d.capacity.Offers = append(d.capacity.Offers, lease.Offer{
			Type: fmt.Sprintf("gpu_%dx", i), GPU: long, Regions: strings.Fields(strings.Repeat("us-east-1 ", 40)), Rule: "max_price_per_hour = $10.00 (default)", GPUs: 8,
		})
	}
	stopped := row
	stopped.State = lease.Ended
	d.launch = func(context.Context, lease.LaunchRequest) (lease.Lease, error) { return row, nil }
	d.quote = func(lease.LaunchRequest) (lease.Quote, error) {
		v := policy.Violation{Rule: "caps.per_day", Code: policy.CodeBudgetExceeded, Message: long, Source: "default"}
		return lease.Quote{TTL: time.Hour, Decision: policy.Decision{Verdict: policy.Deny, Violations: []policy.Violation{v, v, v}, Nearest: &policy.Nearest{Type: "a", TTL: time.Hour}}}, nil
	}
	d.stop = func() (lease.Lease, error) { return stopped, nil }
	d.extend = func(lease.Extension) (lease.Lease, error) { return row, nil }
	d.list = func(_ bool, limit int) ([]lease.Lease, error) { return many[:limit], nil }
	d.spend = func() (lease.Spending, error) {
		s := lease.Spending{Leases: many}
		for i := range 500 {
			s.Principals = append(s.Principals, lease.PrincipalSpending{Name: fmt.Sprintf("principal-%d", i)})
			s.Caps = append(s.Caps, policy.CapLeft{Rule: "caps.per_day", Source: "/some/where/policy.yaml:12"})
			s.Strangers = append(s.Strangers, lease.Stranger{Instance: fmt.Sprintf("%032d", i), Type: "gpu_8x_h100_sxm5"})
		}
		return s, nil
	}
	job := remote.Job{ID: jobID, State: remote.Exited, ExitCode: 1, Reason: remote.ReasonExit, Command: long}
	d.start = func(remote.Command) (lease.Job, error) { return lease.Job{Lease: row, Job: job}, nil }
	d.looks = []remote.Job{job}
	d.jobs = func() ([]remote.Job, error) { return append([]remote.Job{}, make([]remote.Job, 500)...), nil }
	d.output = func(head, tail int) (o, e remote.Excerpt, err error) {
		x := excerptOf(strings.Repeat("\x01", 1<<20), head, tail)
		return x, x, nil
	}
	d.page = func(_ remote.Stream, offset int64, limit int, _ time.Duration) (remote.Page, error) {
		return remote.Page{Job: job, Data: bytes.Repeat([]byte("\x01"), limit), Offset: offset, NextOffset: offset + int64(limit), Size: 1 << 20}, nil
	}
	d.cancel = func(time.Duration) (remote.Job, error) { return job, nil }
	d.mixed = func(offset int64, limit int) (remote.Mixed, error) {
		m := remote.Mixed{Job: job, Offset: offset, NextOffset: offset + int64(limit), Size: 1 << 20}
		m.Chunks = []remote.Chunk{{Stream: remote.Stdout, Data: bytes.Repeat([]byte("\x01"), limit)}}
		return m, nil
	}
	d.search = func(remote.Stream, remote.Search) (remote.Found, error) {
		f := remote.Found{Job: job, NextOffset: 100, Size: 1 << 20, More: true}
		for i := range 100 {
			f.Snippets = append(f.Snippets, remote.Snippet{Offset: int64(i), Data: []byte(strings.Repeat("\x01", 4000)), Matches: []int64{int64(i)}})
		}
		return f, nil
	}
	d.fetch = func(context.Context, []string, string, remote.FetchOptions) (remote.FetchSummary, error) {
		var s remote.FetchSummary
		for range 1000 {
			s.Files = append(s.Files, remote.Fetched{Path: long, Changed: true})
			s.Missing, s.Left = append(s.Missing, long), append(s.Left, remote.Left{Path: long})
			s.Skipped = append(s.Skipped, remote.Skipped{Path: long, Reason: long})
		}
		return s, nil
	}
	d.open = func(int, int) (lease.Forward, error) { return lease.Forward{LocalAddr: "127.0.0.1:40001"}, nil }
	d.push = func(context.Context, string, string, remote.PushOptions) (remote.PushSummary, error) {
		s := remote.PushSummary{Files: 1}
		for range 1000 {
			s.Skipped = append(s.Skipped, remote.Skipped{Path: long, Reason: long})
		}
		return s, nil
	}
	return d
}

// Every tool answers what its schema promises and in some 8 KB, however much there is
// to tell; and says what comes next.
func TestAnswersAreShortAndAsPromised(t *testing.T) {
	const most = 11_500 // 8 KB as the machine wrote it, and what stands beside
	root := t.TempDir()
	calls := map[string][]string{
		"list_capacity": {`{}`, `{"include_unavailable":true}`},
		"launch_lease":  {`{"type":"a","purpose":"` + strings.Repeat("p", 5000) + `"}`, `{"type":"a","dry_run":true,"purpose":"` + strings.Repeat("p", 5000) + `"}`},
		"run_command":   {`{"lease_id":"abcdefghijkl","command":"x"}`},
		"stop_lease":    {`{"lease_id":"abcdefghijkl"}`},
		"get_lease":     {`{"lease_id":"abcdefghijkl"}`},
		"list_leases":   {`{}`},
		"extend_lease":  {`{"lease_id":"abcdefghijkl","minutes":5}`},
		"read_output": {
			`{"job_id":"abcdefghijkl-mnopqrst"}`, `{"job_id":"abcdefghijkl-mnopqrst","stream":"both"}`,
			`{"job_id":"abcdefghijkl-mnopqrst","pattern":"x"}`, `{"job_id":"abcdefghijkl-mnopqrst","pattern":"x","offset":-1}`,
		},
		"fetch_files":  {`{"lease_id":"abcdefghijkl","paths":["out"]}`},
		"forward_port": {`{"lease_id":"abcdefghijkl","port":80}`, `{"lease_id":"abcdefghijkl","port":80,"close":true}`},
		"cancel_job":   {`{"job_id":"abcdefghijkl-mnopqrst"}`},
		"sync_files":   {`{"lease_id":"abcdefghijkl","local_dir":"."}`},
		"spend_report": {`{}`},
	}
	for _, tool := range tools.All(tools.Deps{Leases: hostile(), Roots: []string{root}}) {
		require.NotEmpty(t, calls[tool.Name], "no call of %s here", tool.Name)
		for i, args := range calls[tool.Name] {
			t.Run(fmt.Sprintf("%s %d", tool.Name, i), func(t *testing.T) {
				r, err := tool.Call(t.Context(), json.RawMessage(args))
				require.NoError(t, err)
				var plain bytes.Buffer
				e := json.NewEncoder(&plain)
				e.SetEscapeHTML(false) // as hosts show it to the model
				var answer map[string]any
				require.NoError(t, json.Unmarshal(r.Structured, &answer))
				require.NoError(t, e.Encode(answer))
				require.LessOrEqual(t, plain.Len(), most)
				require.LessOrEqual(t, len(r.Text), most+1000)
				require.NoError(t, schemaOf(t, tool.OutputSchema).Validate(answer))
				require.Contains(t, r.Text, "\nnext: "+nextOf(t, answer))
				if answer["decision"] == nil { // a quote is about no lease
					require.NotEmpty(t, answer["warnings"])
					require.LessOrEqual(t, len(answer["warnings"].([]any)), 8)
				}
			})
		}
	}
}

// More than that is for who asks for it.
func TestAnswersAreAsLongAsAskedFor(t *testing.T) {
	d := hostile()
	got, _ := answer(t, d, "list_leases", `{"limit":100}`)
	require.Len(t, got["leases"], 100)
	got, _ = answer(t, d, "spend_report", `{"limit":100}`)
	require.Len(t, got["leases"], 100)
	require.Equal(t, 400.0, got["leases_omitted"])
	got, _ = answer(t, d, "read_output", `{"job_id":"abcdefghijkl-mnopqrst","limit_bytes":36000}`)
	require.Len(t, got["data"], 7500, "each of them takes six bytes")
	require.Equal(t, 7500.0, got["next_offset"])
	require.Equal(t, false, got["eof"])
}

// What an argument was likely meant to be is said for every tool, and nothing is done.
func TestEveryToolKnowsTheNearestName(t *testing.T) {
	for _, tool := range tools.All(tools.Deps{}) { // without leases: a call of one panics
		var in struct {
			Properties map[string]any `json:"properties"`
		}
		require.NoError(t, json.Unmarshal(tool.InputSchema, &in))
		for name := range in.Properties {
			wrong := strings.ToUpper(name[:1]) + name[1:] + "s"
			_, text := refusal(t, tool, fmt.Sprintf(`{%q:1}`, wrong))
			require.Contains(t, text, fmt.Sprintf("there is no argument %q; did you mean %q?", wrong, name), tool.Name)
			require.True(t, strings.HasPrefix(text, "error invalid_input: "), text)
		}
		e, _ := refusal(t, tool, `[]`)
		require.Equal(t, lease.CodeInvalidInput, e.Code)
		e, _ = refusal(t, tool, `{`)
		require.Equal(t, lease.CodeInvalidInput, e.Code)
	}
}
