package tools_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	leaseID = lease.ID("abcdefghijkl")
	jobID   = "abcdefghijkl-mnopqrst"
)

// ready is a lease on which everything works.
func ready() lease.Lease {
	return lease.Lease{
		ID: leaseID, State: lease.Ready, Detail: "ready", Type: "gpu_1x_a10", Region: "us-east-1", GPUs: 1, Purpose: "test",
		Price: 1_290_000, Reserved: 1_000_000, TTL: time.Hour, CreatedAt: noon.Add(-10 * time.Minute), ReadyAt: noon.Add(-5 * time.Minute),
		BillingFrom: noon.Add(-6 * time.Minute), Deadline: noon.Add(55 * time.Minute),
	}
}

// desk answers as a lease manager would. What a test does not fill in panics.
type desk struct {
	tools.Leases

	row      lease.Lease
	then     []lease.Lease // what the row becomes, one a look of Wait
	warnings []string
	second   lease.ID
	budget   policy.Money

	notices []string
	spend   func() (lease.Spending, error)
	extend  func(lease.Extension) (lease.Lease, error)
	results func(paths []string, dir string) (lease.Lease, error)

	approve    func(shown lease.Lease, by string) (lease.Lease, error)
	approvedBy string

	capacity lease.Capacity
	launch   func(context.Context, lease.LaunchRequest) (lease.Lease, error)
	quote    func(lease.LaunchRequest) (lease.Quote, error)
	stop     func() (lease.Lease, error)
	list     func(live bool, limit int) ([]lease.Lease, error)

	start  func(remote.Command) (lease.Job, error)
	looks  []remote.Job // what Job answers, in order; the last again and again
	jobs   func() ([]remote.Job, error)
	use    func() (lease.Use, error)
	output func(head, tail int) (remote.Excerpt, remote.Excerpt, error)
	page   func(s remote.Stream, offset int64, limit int, wait time.Duration) (remote.Page, error)
	mixed  func(offset int64, limit int) (remote.Mixed, error)
	search func(s remote.Stream, what remote.Search) (remote.Found, error)
	cancel func(grace time.Duration) (remote.Job, error)
	push   func(ctx context.Context, src, dst string, o remote.PushOptions) (remote.PushSummary, error)
	fetch  func(ctx context.Context, paths []string, dst string, o remote.FetchOptions) (remote.FetchSummary, error)
	open   func(localPort, remotePort int) (lease.Forward, error)
	ports  []lease.Forward
	waits  []time.Duration
	calls  []string // names of the calls that ran commands
}

func (d *desk) Capacity(context.Context) (lease.Capacity, error) { return d.capacity, nil }

func (d *desk) Quote(_ context.Context, r lease.LaunchRequest) (lease.Quote, error) {
	return d.quote(r)
}

func (d *desk) Launch(ctx context.Context, r lease.LaunchRequest) (lease.Lease, error) {
	return d.launch(ctx, r)
}

func (d *desk) Notices(context.Context) []string { return d.notices }

func (d *desk) Spend(context.Context, string) (lease.Spending, error) { return d.spend() }

func (d *desk) Extend(_ context.Context, _ lease.ID, x lease.Extension) (lease.Lease, error) {
	return d.extend(x)
}

func (d *desk) SetResults(_ context.Context, _ lease.ID, paths []string, dir string) (lease.Lease, error) {
	return d.results(paths, dir)
}

func (d *desk) ApproveShown(_ context.Context, shown lease.Lease, by string) (lease.Lease, error) {
	d.approvedBy = by
	return d.approve(shown, by)
}

func (d *desk) Stop(context.Context, lease.ID) (lease.Lease, error) { return d.stop() }

func (d *desk) List(_ context.Context, live bool, limit int) ([]lease.Lease, error) {
	return d.list(live, limit)
}

func (d *desk) Get(_ context.Context, id lease.ID) (lease.Lease, error) {
	if id != d.row.ID {
		return lease.Lease{}, &lease.Error{Code: lease.CodeLeaseNotFound, Message: "there is no such lease", LeaseID: id}
	}
	return d.row, nil
}

func (d *desk) Wait(_ context.Context, _ lease.ID, wait time.Duration, done func(lease.Lease) bool) (lease.Lease, error) {
	d.waits = append(d.waits, wait)
	for !done(d.row) && len(d.then) > 0 {
		d.row, d.then = d.then[0], d.then[1:]
	}
	return d.row, nil
}

func (d *desk) Status(ctx context.Context, l lease.Lease) lease.Status {
	if ctx.Err() != nil {
		return lease.Status{Lease: l, Warnings: []string{"the context was over"}, At: noon}
	}
	return lease.Status{Lease: l, SecondTry: d.second, Cost: l.CostAt(noon), BudgetLeft: d.budget, Guard: "server 1, seen 2 s ago", Warnings: d.warnings, At: noon}
}

func (d *desk) Statuses(ctx context.Context, leases []lease.Lease) (out []lease.Status) {
	for _, l := range leases {
		out = append(out, d.Status(ctx, l))
	}
	return out
}

func (d *desk) RunCommand(_ context.Context, _ lease.ID, call string, c remote.Command, wait time.Duration, head, tail int) (j lease.Job, o, e remote.Excerpt, err error) {
	d.calls = append(d.calls, call)
	if j, err = d.start(c); err != nil {
		return j, o, e, err
	}
	if wait > 0 {
		if j, err = d.Job(context.Background(), j.ID, wait); err != nil {
			j.ID = jobID
			return j, o, e, err
		}
	}
	o, e, err = d.output(head, tail)
	return j, o, e, err
}

func (d *desk) Job(_ context.Context, _ string, wait time.Duration) (lease.Job, error) {
	d.waits = append(d.waits, wait)
	now := d.looks[0]
	if len(d.looks) > 1 {
		d.looks = d.looks[1:]
	}
	if now.ID == "" {
		return lease.Job{Lease: d.row}, &lease.Error{Code: lease.CodeSSHUnreachable, Message: "the machine does not answer", Retryable: true}
	}
	return lease.Job{Lease: d.row, Job: now}, nil
}

func (d *desk) Use(context.Context, lease.ID) (lease.Use, error) {
	if d.use == nil {
		return lease.Use{}, nil
	}
	return d.use()
}

func (d *desk) Jobs(context.Context, lease.ID) ([]remote.Job, error) { return d.jobs() }

func (d *desk) Output(_ context.Context, _ string, head, tail int) (stdout, stderr remote.Excerpt, err error) {
	if d.output == nil {
		return stdout, stderr, nil
	}
	return d.output(head, tail)
}

func (d *desk) Page(_ context.Context, _ string, s remote.Stream, offset int64, limit int, wait time.Duration) (remote.Page, lease.Lease, error) {
	p, err := d.page(s, offset, limit, wait)
	return p, d.row, err
}

func (d *desk) Mixed(_ context.Context, _ string, offset int64, limit int, _ time.Duration) (remote.Mixed, lease.Lease, error) {
	m, err := d.mixed(offset, limit)
	return m, d.row, err
}

func (d *desk) Search(_ context.Context, _ string, s remote.Stream, what remote.Search) (remote.Found, lease.Lease, error) {
	f, err := d.search(s, what)
	return f, d.row, err
}

func (d *desk) Cancel(_ context.Context, _ string, grace time.Duration) (lease.Job, error) {
	j, err := d.cancel(grace)
	return lease.Job{Lease: d.row, Job: j}, err
}

func (d *desk) Push(ctx context.Context, _ lease.ID, src, dst string, o remote.PushOptions) (remote.PushSummary, lease.Lease, error) {
	s, err := d.push(ctx, src, dst, o)
	return s, d.row, err
}

func (d *desk) Fetch(ctx context.Context, _ lease.ID, paths []string, dst string, o remote.FetchOptions) (remote.FetchSummary, lease.Lease, error) {
	s, err := d.fetch(ctx, paths, dst, o)
	return s, d.row, err
}

func (d *desk) Forward(_ context.Context, _ lease.ID, localPort, remotePort int) (lease.Forward, lease.Lease, error) {
	f, err := d.open(localPort, remotePort)
	return f, d.row, err
}

func (d *desk) CloseForward(context.Context, lease.ID, int) ([]lease.Forward, lease.Lease, error) {
	closed := d.ports
	d.ports = nil
	return closed, d.row, nil
}

func (d *desk) Forwards(lease.ID) []lease.Forward { return d.ports }

// excerptOf is a stream as the machine would cut it.
func excerptOf(all string, head, tail int) remote.Excerpt {
	if len(all) <= head+tail {
		return remote.Excerpt{Head: []byte(all), Size: int64(len(all))}
	}
	return remote.Excerpt{Head: []byte(all[:head]), Tail: []byte(all[len(all)-tail:]), Size: int64(len(all))}
}

// use calls a tool. Its answer has been checked against its output schema.
func use(t *testing.T, d tools.Deps, tool, args string) (tools.Result, error) {
	t.Helper()
	return useIn(t.Context(), t, d, tool, args)
}

func useIn(ctx context.Context, t *testing.T, d tools.Deps, name, args string) (tools.Result, error) {
	t.Helper()
	return toolOf(t, d, name).Call(ctx, json.RawMessage(args))
}

func toolOf(t *testing.T, d tools.Deps, name string) tools.Tool {
	t.Helper()
	for _, tool := range tools.All(d) {
		if tool.Name == name {
			return tool
		}
	}
	require.FailNow(t, "no such tool", name)
	return tools.Tool{}
}

// answer is the structured content of a call that must succeed.
func answer(t *testing.T, d *desk, tool, args string) (map[string]any, string) {
	t.Helper()
	r, err := use(t, tools.Deps{Leases: d}, tool, args)
	require.NoError(t, err)
	return fields(t, r), r.Text
}

func fields(t *testing.T, r tools.Result) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(r.Structured, &m))
	require.Contains(t, m, "next", "every answer says what comes next")
	m["next"] = nextOf(t, m)
	return m
}

// failed is the error of a call that must fail, as the agent reads it.
func failed(t *testing.T, d *desk, tool, args string) string {
	t.Helper()
	_, err := use(t, tools.Deps{Leases: d}, tool, args)
	require.Error(t, err)
	return tools.Render(tools.Explain(err, nil))
}
