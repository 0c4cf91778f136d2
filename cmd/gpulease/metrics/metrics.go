// Package metrics tells Prometheus how a server over HTTP and its leases are doing.
// It names no principal, no lease and no job: whoever may read it is one principal
// among others. Amounts are dollars, and samples are floats, as Prometheus has them:
// nothing is decided by them.
package metrics

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// Source is where the money and the guards are read.
type Source interface {
	Spend(ctx context.Context, principal string) (lease.Spending, error)
	Guards(ctx context.Context) ([]lease.Guard, error)
}

const readTime = 5 * time.Second

// Metrics are all that is measured.
type Metrics struct {
	registry *prometheus.Registry
	took     *prometheus.HistogramVec
	ended    *prometheus.CounterVec
}

// New makes them. sessions counts the open ones.
func New(version string, from Source, sessions func() int) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gpulease_tool_call_seconds", Help: "How long calls of a tool took.", Buckets: []float64{.005, .02, .1, .5, 2, 10, 45},
		}, []string{"tool"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gpulease_tool_calls_total", Help: "Calls of a tool, by how they ended: ok, or the code of the error.",
		}, []string{"tool", "code"}),
	}
	m.registry.MustRegister(
		m.took, m.ended, state{from},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "gpulease_sessions", Help: "Sessions of clients over HTTP."}, func() float64 { return float64(sessions()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gpulease_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version},
		}, func() float64 { return 1 }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Call counts a call.
func (m *Metrics) Call(tool string, took time.Duration, err error) {
	code := "ok"
	if err != nil {
		code = string(lease.CodeOf(err))
	}
	m.took.WithLabelValues(tool).Observe(took.Seconds())
	m.ended.WithLabelValues(tool, code).Inc()
}

// Handler answers Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// state is read from the ledger at each look.
type state struct{ from Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gpulease_"+name, help, labels, nil)
}

var (
	up          = desc("ledger_up", "1 if ledger and policy could be read for these figures, else 0, and they are absent.")
	leases      = desc("leases", "Leases that have not ended, by state.", "state")
	unconfirmed = desc("stop_unconfirmed_seconds", "How long the longest stop that is not confirmed takes; 0 for none.")
	burn        = desc("burn_usd_per_hour", "Price of all that is alive.")
	reserved    = desc("reserved_usd", "What live leases may still cost at most.")
	used        = desc("used_usd", "Spent and reserved, by period.", "period")
	capLimit    = desc("cap_usd", "A cap of the account.", "rule")
	capUsed     = desc("cap_used_usd", "What is used of it.", "rule")
	untracked   = desc("untracked_instances", "Instances in the account that no lease accounts for.")
	frozen      = desc("frozen", "1 while launches are frozen.")
	guardAge    = desc("guard_age_seconds", "How long ago a guard of a kind was last seen.", "kind")
)

func (s state) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{up, leases, unconfirmed, burn, reserved, used, capLimit, capUsed, untracked, frozen, guardAge} {
		to <- d
	}
}

func (s state) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	send := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	money, err := s.from.Spend(ctx, "")
	if err != nil || money.Trouble != "" {
		send(up, 0)
		return
	}
	guards, err := s.from.Guards(ctx)
	if err != nil {
		send(up, 0)
		return
	}
	send(up, 1)
	collectLeases(send, money)
	account := money.Usage.Account
	send(burn, dollars(account.BurnPerHour))
	send(reserved, dollars(money.Held))
	for period, amount := range map[string]policy.Money{"day": account.Day, "week": account.Week, "month": account.Month, "lifetime": account.Lifetime} {
		send(used, dollars(amount), period)
	}
	for _, c := range money.Caps {
		if !strings.HasPrefix(c.Rule, "principals.") {
			send(capLimit, dollars(c.Limit), c.Rule)
			send(capUsed, dollars(c.Used), c.Rule)
		}
	}
	send(untracked, float64(len(money.Strangers)))
	on := 0.0
	if money.Frozen.On() {
		on = 1
	}
	send(frozen, on)
	collectGuards(send, guards, money.At)
}

type sender func(d *prometheus.Desc, value float64, labels ...string)

func collectLeases(send sender, money lease.Spending) {
	count := map[lease.State]int{}
	for _, s := range []lease.State{lease.WaitingCapacity, lease.AwaitingApproval, lease.Launching, lease.Booting, lease.Ready, lease.Stopping} {
		count[s] = 0
	}
	var longest time.Duration
	for _, l := range money.Leases {
		if l.State.Live() {
			count[l.State]++
		}
		if l.State == lease.Stopping {
			longest = max(longest, money.At.Sub(l.StopAt))
		}
	}
	for s, n := range count {
		send(leases, float64(n), string(s))
	}
	send(unconfirmed, longest.Seconds())
}

// collectGuards says how old the newest heartbeat of each kind of guard is.
func collectGuards(send sender, guards []lease.Guard, at time.Time) {
	seen := map[string]time.Time{}
	for _, g := range guards {
		kind, _, _ := strings.Cut(g.Name, " ")
		switch kind {
		case lease.GuardServer, lease.GuardKeeper, lease.GuardReap:
			if g.Seen.After(seen[kind]) {
				seen[kind] = g.Seen
			}
		}
	}
	for kind, t := range seen {
		send(guardAge, max(0, at.Sub(t).Seconds()), kind)
	}
}

func dollars(m policy.Money) float64 { return float64(m) / 1e6 }
