package lease

import (
	"context"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// CloudReader is what the lease logic reads from the cloud. None of it costs
// anything.
type CloudReader interface {
	InstanceTypes(ctx context.Context) ([]lambda.InstanceTypeOffer, error)
	Instances(ctx context.Context) ([]lambda.Instance, error)
	Instance(ctx context.Context, id string) (lambda.Instance, error)
	SSHKeys(ctx context.Context) ([]lambda.SSHKey, error)
	FirewallRulesets(ctx context.Context) ([]lambda.FirewallRuleset, error)
	// Account is a fingerprint of the API key.
	Account(ctx context.Context) (string, error)
	// ClockSkew is the server's clock minus ours, by its newest answer. answer counts
	// the answers so far; it is 0 before the first.
	ClockSkew() (skew time.Duration, answer uint64)
	Signer
}

// CloudWriter is what changes the account. Launch is the only call that costs
// money; it is never repeated here.
type CloudWriter interface {
	Launch(ctx context.Context, r lambda.LaunchRequest) (instanceID string, err error)
	Terminate(ctx context.Context, ids ...string) ([]lambda.Instance, error)
	AddSSHKey(ctx context.Context, name, publicKey string) (lambda.SSHKey, error)
	DeleteSSHKey(ctx context.Context, id string) error
}

// Cloud is the account.
type Cloud interface {
	CloudReader
	CloudWriter
}

// Machine is the leased machine, reached over SSH with a pinned host key.
type Machine interface {
	Check(ctx context.Context, t remote.Target) error
	CloudInit(ctx context.Context, t remote.Target) (remote.CloudInit, error)
	Health(ctx context.Context, t remote.Target, gpus int) (remote.Health, error)
	// ProbeCUDA lets the GPUs compute, in 25 s at most. What cannot be told is no error.
	ProbeCUDA(ctx context.Context, t remote.Target, gpus int) (remote.CUDA, error)
	// Run starts a job at most once, waits for its end, and shows the head and tail of what it wrote.
	Run(ctx context.Context, t remote.Target, jobID string, c remote.Command, wait time.Duration, head, tail int) (j remote.Job, stdout, stderr remote.Excerpt, err error)
	// RotateHostKey has the machine take a host key of its own, which record is told before.
	RotateHostKey(ctx context.Context, t remote.Target, record func(ssh.PublicKey) error) (ssh.PublicKey, error)
	Job(ctx context.Context, t remote.Target, jobID string, wait time.Duration) (remote.Job, error)
	Jobs(ctx context.Context, t remote.Target) ([]remote.Job, error)
	Output(ctx context.Context, t remote.Target, jobID string, head, tail int) (stdout, stderr remote.Excerpt, err error)
	Page(ctx context.Context, t remote.Target, jobID string, s remote.Stream, offset int64, limit int, wait time.Duration) (remote.Page, error)
	Mixed(ctx context.Context, t remote.Target, jobID string, offset int64, limit int, wait time.Duration) (remote.Mixed, error)
	Search(ctx context.Context, t remote.Target, jobID string, s remote.Stream, what remote.Search) (remote.Found, error)
	Cancel(ctx context.Context, t remote.Target, jobID string, grace time.Duration) (remote.Job, error)
	// Activity is what the machine is doing now. What it cannot tell is unknown, not nothing.
	Activity(ctx context.Context, t remote.Target) (remote.Activity, error)
	// Samples sums up what the machine's own sampler has seen, and starts it where there is none.
	Samples(ctx context.Context, t remote.Target, window time.Duration) (remote.Samples, error)
	Fetch(ctx context.Context, t remote.Target, paths []string, dst string, o remote.FetchOptions) (remote.FetchSummary, error)
	Push(ctx context.Context, t remote.Target, src, dst string, o remote.PushOptions) (remote.PushSummary, error)
	// Forward opens a port on 127.0.0.1; Forwards lists those to a machine that are open.
	Forward(ctx context.Context, t remote.Target, localPort int, remoteAddr string) (*remote.Forward, error)
	Forwards(key string) []*remote.Forward
	Forget(key string)
}

// Keys keeps the private half of each lease's SSH key while the lease lives.
type Keys interface {
	Save(id ID, privatePEM []byte) error
	Load(id ID) (ssh.Signer, error)
	Delete(id ID) error
	// List names the leases whose keys are kept.
	List() ([]ID, error)
}

// PolicySource gives the policy in force now. An error means: no launch.
type PolicySource interface {
	Current() (*policy.Policy, error)
	// Origin says where it comes from, in a form that policy.SourceFrom reads. A
	// request that waits is decided by the policy that it was made under.
	Origin() string
}
