package tools

import (
	"context"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

// Reader is what tools ask of leases. None of it costs anything. See the methods
// of [lease.Manager], which implements all of these interfaces.
type Reader interface {
	Capacity(ctx context.Context) (lease.Capacity, error)
	Quote(ctx context.Context, r lease.LaunchRequest) (lease.Quote, error)
	Get(ctx context.Context, id lease.ID) (lease.Lease, error)
	List(ctx context.Context, live bool, limit int) ([]lease.Lease, error)
	Wait(ctx context.Context, id lease.ID, d time.Duration, done func(lease.Lease) bool) (lease.Lease, error)
	Status(ctx context.Context, l lease.Lease) lease.Status
	Statuses(ctx context.Context, leases []lease.Lease) []lease.Status
	Notices(ctx context.Context) []string
	Spend(ctx context.Context, principal string) (lease.Spending, error)
}

// Changer is what tools do to leases.
type Changer interface {
	Launch(ctx context.Context, r lease.LaunchRequest) (lease.Lease, error)
	Stop(ctx context.Context, id lease.ID) (lease.Lease, error)
	Extend(ctx context.Context, id lease.ID, x lease.Extension) (lease.Lease, error)
	SetResults(ctx context.Context, id lease.ID, paths []string, dir string) (lease.Lease, error)
	ApproveShown(ctx context.Context, shown lease.Lease, by string) (lease.Lease, error)
}

// Worker is what tools do on a lease's machine.
type Worker interface {
	RunCommand(ctx context.Context, id lease.ID, call string, c remote.Command, wait time.Duration, head, tail int) (j lease.Job, stdout, stderr remote.Excerpt, err error)
	Job(ctx context.Context, jobID string, wait time.Duration) (lease.Job, error)
	Jobs(ctx context.Context, id lease.ID) ([]remote.Job, error)
	Use(ctx context.Context, id lease.ID) (lease.Use, error)
	Output(ctx context.Context, jobID string, head, tail int) (stdout, stderr remote.Excerpt, err error)
	Page(ctx context.Context, jobID string, s remote.Stream, offset int64, limit int, wait time.Duration) (remote.Page, lease.Lease, error)
	Mixed(ctx context.Context, jobID string, offset int64, limit int, wait time.Duration) (remote.Mixed, lease.Lease, error)
	Search(ctx context.Context, jobID string, s remote.Stream, what remote.Search) (remote.Found, lease.Lease, error)
	Cancel(ctx context.Context, jobID string, grace time.Duration) (lease.Job, error)
	Push(ctx context.Context, id lease.ID, src, dst string, o remote.PushOptions) (remote.PushSummary, lease.Lease, error)
	Forward(ctx context.Context, id lease.ID, localPort, remotePort int) (lease.Forward, lease.Lease, error)
	CloseForward(ctx context.Context, id lease.ID, remotePort int) ([]lease.Forward, lease.Lease, error)
	Forwards(id lease.ID) []lease.Forward
	Fetch(ctx context.Context, id lease.ID, paths []string, dst string, o remote.FetchOptions) (remote.FetchSummary, lease.Lease, error)
}

// Leases is all of it.
type Leases interface {
	Reader
	Changer
	Worker
}

// Deps is what the tools work with.
type Deps struct {
	Leases Leases
	// Roots are the local directories below which sync_files may read and fetch_files
	// may write; absolute. Relative paths are below the first, and so are results that
	// come home. Without any, nothing is read or brought.
	Roots []string
	// Remote says that agents are on other computers: what touches this one's disk or
	// ports is left out unless there are Roots, and ports are left out in any case.
	Remote bool
	// Denied are local directories and files that sync_files never sends anything of,
	// also where they lie below a root: gpulease's own state, keys and settings.
	// Absolute; what is not there is no error.
	Denied []string
	// Secrets are texts of this program's own that no output of a job is to show;
	// nil for none.
	Secrets func() []string
	// Kept are further local files, beside Denied, that fetch_files must not be able to
	// overwrite: the policy in force, the ledger, the API key, the program. Absolute.
	Kept []string
}

// All are the tools of gpulease, those first without which nothing works.
func All(d Deps) []Tool {
	hidden := &secrets{fixed: d.Secrets}
	all := []Tool{
		listCapacity(d.Leases),
		launchLease(d.Leases, d.Roots, d.Denied),
		runCommand(d.Leases, hidden),
		stopLease(d.Leases, d.Roots, d.Denied),
		getLease(d.Leases, hidden),
		listLeases(d.Leases),
		extendLease(d.Leases),
		readOutput(d.Leases, hidden),
		cancelJob(d.Leases),
		syncFiles(d.Leases, d.Roots, d.Denied),
		fetchFiles(d.Leases, d.Roots, d.Denied, d.Kept, hidden),
		forwardPort(d.Leases),
		spendReport(d.Leases),
	}
	if !d.Remote {
		return all
	}
	return remoteTools(all, len(d.Roots) > 0)
}
