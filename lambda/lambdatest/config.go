package lambdatest

import (
	"net/http"
	"time"
)

// Config says how a simulated cloud behaves. The zero value works: the default
// catalogue, the real clock, a boot of three seconds, no SSH hosts, no limits.
type Config struct {
	// APIKey is the account's key. Empty means a random one of Lambda's look.
	APIKey string

	// BootTime is how long an instance boots (default 3 s; negative means not at
	// all). Its address appears after three tenths of it.
	BootTime time.Duration
	// TerminateTime is how long an instance is terminating (default 2 s; negative
	// means not at all), and Linger how long it is listed as terminated after
	// that (default 5 s; negative means not at all) before it is a 404.
	TerminateTime, Linger time.Duration

	// SSHHosts starts a machine per instance: an SSH host on a loopback address of
	// its own. SSHPort is its port, the same for all instances; 0 picks a free one.
	// Dir is where the machines keep their homes (default: a temporary directory, or
	// one beside the state file; removed by Close). HostGPU shows the GPUs of this
	// host, if it has some, instead of those of the catalogue. On systems other
	// than Linux there is only one loopback address, and so one machine at a time.
	SSHHosts bool
	SSHPort  int
	Dir      string
	HostGPU  bool

	// Catalog is what can be launched; nil means DefaultCatalog.
	Catalog *Catalog

	// Virtual stops the clock at the time of New; only Advance moves it. Now is the
	// source of time (default time.Now).
	Virtual bool
	Now     func() time.Time

	// RateLimit answers 429 above one request a second (bursts of five) and one
	// launch in twelve seconds. RateLimitHTML makes it Cloudflare's page instead
	// of the JSON envelope: which of them the service sends is not documented.
	RateLimit, RateLimitHTML bool

	// Quota is how many instances may exist at once; 0 means no quota.
	Quota int
	// LaunchNotFound is the status of object-does-not-exist at launch, for which
	// Lambda's document has two: 404 (default) or 400.
	LaunchNotFound int
	// TerminateOnce refuses to terminate an instance that is terminating already,
	// with the code global/unknown, as was seen in 2024. Default: it is answered
	// like the first time.
	TerminateOnce bool
	// UnhealthyFree leaves instances that never became healthy off the bill.
	// Default: they are billed from the moment they are unhealthy, since reports
	// disagree and a ledger must be safe for the worse case.
	UnhealthyFree bool

	// Newer emits what the service has added since the document: architecture,
	// first_healthy, image, power_cycle, workspace_id, page_token, and GET
	// /filesystems.
	Newer bool
	// Nulls emits null for unset fields of an instance where the document has
	// them absent, and takes null for absent in requests, as the API before 1.6.
	Nulls bool
	// Strict refuses request fields that the document does not know. They are
	// reported by Findings in any case.
	Strict bool

	// StateFile keeps everything but faults and the request log over a restart.
	StateFile string
	// Scenario is applied at the start.
	Scenario *Scenario
	// Seed makes ids and the probabilities of faults repeatable; 0 means random.
	Seed uint64

	// Wrap goes around the handler, for instance to validate every exchange.
	Wrap func(http.Handler) http.Handler
	// Logf gets one line for each request and each event; nil means nowhere. No
	// secret is in them. It must not call the server.
	Logf func(format string, args ...any)

	catalogGiven bool
}

func (c Config) withDefaults() Config {
	duration := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
		*d = max(*d, 0)
	}
	duration(&c.BootTime, 3*time.Second)
	duration(&c.TerminateTime, 2*time.Second)
	duration(&c.Linger, 5*time.Second)
	c.catalogGiven = c.Catalog != nil
	if c.Catalog == nil {
		c.Catalog = DefaultCatalog()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.LaunchNotFound != http.StatusBadRequest {
		c.LaunchNotFound = http.StatusNotFound
	}
	if c.Logf == nil {
		c.Logf = func(string, ...any) {}
	}
	return c
}
