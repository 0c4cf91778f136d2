package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// tolerableSkew is how far our clock may be off before it is worth a line.
const tolerableSkew = 10 * time.Second

func (x *examination) clock() {
	if x.Cloud == nil {
		return
	}
	skew, answer := x.Cloud.ClockSkew()
	if answer == 0 {
		return // Lambda did not answer, and that is said already
	}
	skew = skew.Round(time.Second)
	if skew.Abs() <= tolerableSkew {
		x.ok("clock", State, "agrees with Lambda's within %s", tolerableSkew)
		return
	}
	how := "behind"
	if skew < 0 {
		how = "ahead of"
	}
	x.warn("clock", State, "timedatectl set-ntp true", "%s %s Lambda's; deadlines go by Lambda's clock where the two differ by more than a minute", skew.Abs(), how)
}

func (x *examination) checkPolicy() {
	p, err := x.Policy.Current()
	if err != nil {
		x.fail("policy", Policy, "gpulease policy check, and mend the file", "it cannot be used, so nothing can be launched: %v", err)
		return
	}
	x.policy = p
	from := "file " + p.Path()
	if p.Path() == "" {
		from = fmt.Sprintf("the defaults (no file at %s; gpulease policy init writes one)", x.PolicyPath)
	}
	x.ok("policy", Policy, "in force: %s; %s (policy %s)", from, limits(p, x.Principal), p.Hash()[:12])
}

// limits says what the policy comes to, in a line.
func limits(p *policy.Policy, principal string) string {
	var out []string
	add := func(name string, limit policy.Money) {
		if limit > 0 {
			out = append(out, fmt.Sprintf("%s %s", limit, name))
		}
	}
	add("an hour", p.MaxPricePerHour)
	out = append(out, fmt.Sprintf("TTL %s, at most %s", short(p.TTLFor(principal, 0)), short(p.MaxTTLFor(principal))))
	if p.MaxLeases > 0 {
		out = append(out, count(p.MaxLeases, "lease")+" at once")
	}
	add("a lease", p.Caps.PerLease)
	add("a day", p.Caps.PerDay)
	add("a week", p.Caps.PerWeek)
	add("a month", p.Caps.PerMonth)
	add("in all", p.Caps.Lifetime)
	switch after, mode := p.IdleFor(principal); {
	case after <= 0:
		out = append(out, "the idle run on")
	case mode == policy.IdleWarn:
		out = append(out, "warned of when idle for "+short(after))
	default:
		out = append(out, "ended when idle for "+short(after))
	}
	return strings.Join(out, ", ")
}

// short is a duration without the zeros that Go puts behind it.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (x *examination) openLedger(ctx context.Context) {
	c, err := CopyLedger(ctx, x.LedgerPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(x.LedgerPath + "-wal"); err == nil {
			x.fail("ledger", State, "bring "+x.LedgerPath+" back from a backup", "%s is missing, but its -wal file is there: the ledger was lost", x.LedgerPath)
			return
		}
		x.noFile = true
		x.ok("ledger", State, "none yet at %s; the first server makes it", ledger.Redact(x.LedgerPath))
		return
	case errors.Is(err, ledger.ErrOlderSchema):
		x.warn("ledger", State, "gpulease leases", "not checked: %v", err)
		return
	case errors.Is(err, ledger.ErrNetworkDisk):
		x.warn("ledger", State, "set TMPDIR to a local directory and run gpulease doctor again", "not checked: its copy would be on a network file system")
		return
	case err != nil:
		x.fail("ledger", State, mendLedger(err, x.LedgerPath), "it cannot be used, so nothing can be launched: %v", err)
		return
	}
	x.ledger = c
	if err := x.readLedger(ctx); err != nil {
		x.ledger = nil
		x.fail("ledger", State, "gpulease leases --all", "it cannot be read: %v", errors.Join(err, c.Close()))
	}
}

func mendLedger(err error, path string) string {
	switch {
	case errors.Is(err, ledger.ErrAddress):
		return "correct GPULEASE_LEDGER"
	case errors.Is(err, ledger.ErrAway):
		return "start the PostgreSQL server, or correct GPULEASE_LEDGER"
	case errors.Is(err, ledger.ErrUnwritable) && ledger.OnServer(path):
		return "give the role what it lacks, see docs/ledger.md"
	case errors.Is(err, ledger.ErrNotLedger) && ledger.OnServer(path):
		return "put ?search_path=NAME, a schema of its own, into GPULEASE_LEDGER"
	case errors.Is(err, ledger.ErrNewerSchema):
		return "install the gpulease that wrote it, or a newer one"
	case errors.Is(err, ledger.ErrNotLedger):
		return "set GPULEASE_LEDGER to a file of its own"
	case errors.Is(err, fs.ErrPermission):
		return "chmod 600 " + Quote(path)
	}
	if ledger.OnServer(path) {
		return "look in the console for machines that still run, then bring the database back from a backup"
	}
	return "look in the console for machines that still run, then move " + path + " away"
}

func (x *examination) readLedger(ctx context.Context) error {
	id, err := x.ledger.LedgerID(ctx)
	if err != nil {
		return err
	}
	all, err := x.ledger.List(ctx, 0)
	if err != nil {
		return err
	}
	x.live, x.ended = map[lease.ID]lease.Lease{}, map[lease.ID]lease.Lease{}
	for _, l := range all {
		if l.State == lease.Ended {
			x.ended[l.ID] = l
		} else {
			x.live[l.ID] = l
		}
	}
	what := fmt.Sprintf("%s (ledger %s, schema %d): %s, %d live", ledger.Redact(x.LedgerPath), id, x.ledger.Schema, count(len(all), "lease"), len(x.live))
	bounded, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	switch err := x.ledger.Verify(bounded); {
	case err == nil:
		x.ok("ledger", State, "%s; its history is whole", what)
	case bounded.Err() != nil && ctx.Err() == nil:
		x.warn("ledger", State, "gpulease audit verify", "%s; whether its history is whole could not be found out within %s", what, verifyTime)
	default:
		x.fail("ledger", State, "find out who changed it; gpulease audit verify names each place", "%s is not what was written: %v", ledger.Redact(x.LedgerPath), err)
		return nil
	}
	x.liveLeases()
	return x.standStill(ctx)
}

// verifyTime bounds the look at the ledger's history; a long one takes longer.
const verifyTime = 15 * time.Second

// standStill reports what waits for a person.
func (x *examination) standStill(ctx context.Context) error {
	f, err := x.ledger.Frozen(ctx)
	if err != nil {
		return err
	}
	if f.On() {
		text := fmt.Sprintf("launches and extensions are frozen since %s by %s", clockTime(f.At), f.By)
		if f.Why != "" {
			text += ": " + f.Why
		}
		x.warn("freeze", Policy, "gpulease unfreeze", "%s", text)
	}
	var waits []string
	for _, l := range x.live {
		if l.State == lease.AwaitingApproval && l.ApprovedAt.IsZero() {
			waits = append(waits, fmt.Sprintf("%s (%s for %s, %s at most, until %s)", l.ID, l.Type, short(l.TTL), l.WorstCase(), clockTime(l.DecideBy)))
		}
	}
	if len(waits) > 0 {
		slices.Sort(waits)
		x.warn("approval", Policy, "gpulease approve LEASE, or gpulease deny LEASE", "%s for a person: %s", plural(len(waits), "request waits", "requests wait"), names(waits))
	}
	return nil
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// liveLeases reports live leases that are not as they should be.
func (x *examination) liveLeases() {
	now := x.now()
	for _, l := range x.live {
		switch {
		case x.Cloud != nil && l.Account != "" && l.Account != x.Cloud.Account():
			x.fail("lease "+string(l.ID), State, "set LAMBDA_API_KEY to the key that launched it, then gpulease stop "+string(l.ID),
				"it was launched with another API key; with this one it can be neither watched nor stopped (%s/h)", l.Price)
		case l.State == lease.Stopping:
			x.warn("lease "+string(l.ID), State, "gpulease stop "+string(l.ID), "its stop is not confirmed: %s/h may still be spent", l.Price)
		case !l.Deadline.IsZero() && now.After(l.Deadline.Add(l.StopAllowance)):
			x.fail("lease "+string(l.ID), State, "gpulease stop "+string(l.ID), "its deadline was at %s and nobody has ended it: %s/h are being spent", clockTime(l.Deadline), l.Price)
		}
	}
}

func clockTime(t time.Time) string { return t.Local().Format(time.DateTime) }

// stateDir looks at who may read what is private.
func (x *examination) stateDir() {
	info, err := os.Stat(x.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.ok("state directory", State, "none yet at %s; the first server makes it", x.StateDir)
		return
	case err != nil:
		x.fail("state directory", State, "set GPULEASE_STATE_DIR to a directory of yours", "it cannot be looked at: %v", err)
		return
	case !info.IsDir():
		x.fail("state directory", State, "set GPULEASE_STATE_DIR to a directory", "%s is not a directory", x.StateDir)
		return
	}
	if problem := usable(x.StateDir, info); problem != "" {
		x.fail("state directory", State, "set GPULEASE_STATE_DIR to a directory of yours", "%s %s", x.StateDir, problem)
		return
	}
	loose := x.loose()
	if len(loose) > 0 {
		x.warn("state directory", State, "chmod -R go= "+Quote(x.StateDir), "others on this computer may read or change %s", names(loose))
		return
	}
	x.ok("state directory", State, "%s is yours alone", x.StateDir)
}

// loose are the parts of the state directory that are not the user's alone.
func (x *examination) loose() []string {
	paths := []string{x.StateDir, filepath.Join(x.StateDir, "keys"), x.LedgerPath}
	if keys, err := filepath.Glob(filepath.Join(x.StateDir, "keys", "*")); err == nil {
		paths = append(paths, keys...)
	}
	var out []string
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && isLoose(info) {
			out = append(out, p)
		}
	}
	return out
}

func (x *examination) keyFile() {
	if x.KeyFile == "" {
		return
	}
	if info, err := os.Stat(x.KeyFile); err == nil && isLoose(info) {
		x.warn("key file", Auth, "chmod 600 "+Quote(x.KeyFile), "others on this computer may read %s", x.KeyFile)
	}
}

// Quote makes a path safe to be copied into a shell.
func Quote(path string) string {
	if path != "" && !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@:=", r)
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// silence is how long a guard may say nothing before it counts as dead.
const silence = 30 * time.Second

// guard says who would end the live leases at their deadlines.
func (x *examination) guard(ctx context.Context) {
	keeper, err := x.KeeperRuns()
	running := 0
	for _, l := range x.live {
		if l.Counts() {
			running++
		}
	}
	switch {
	case err != nil:
		x.warn("guard", State, "see the state directory's lines above", "whether a keeper runs cannot be told: %v", err)
		return
	case keeper:
		x.ok("guard", State, "a keeper runs and guards %s%s", count(running, "live lease"), x.reapers(ctx))
		return
	case x.ledger == nil && !x.noFile:
		x.warn("guard", State, "mend the ledger", "no keeper runs, and without the ledger it cannot be told whether one should")
		return
	case running == 0:
		x.ok("guard", State, "no lease is live, so no keeper runs; a server starts it before a launch")
		return
	}
	const mend = "gpulease leases, which starts a keeper"
	guards, err := x.ledger.Guards(ctx)
	if err != nil {
		x.warn("guard", State, mend, "no keeper runs, and who else guards cannot be read: %v", err)
		return
	}
	var seen []string
	reaped := false
	for _, g := range guards {
		ago := x.now().Sub(g.Seen)
		switch kind, _, _ := strings.Cut(g.Name, " "); {
		case kind == lease.GuardReap:
			reaped = reaped || ago < reaperFresh
		case kind != lease.GuardServer && kind != lease.GuardKeeper && kind != "stop": // a role, which is no guard of its own
		case ago < silence:
			seen = append(seen, fmt.Sprintf("%s, seen %d s ago", g.Name, max(0, int(ago/time.Second))))
		}
	}
	switch {
	case len(seen) > 0:
		x.warn("guard", State, mend, "no keeper runs: %s only as long as that lives: %s%s", count(running, "live lease"), names(seen), x.reapers(ctx))
		return
	case reaped:
		x.warn("guard", State, mend, "no keeper runs: the deadlines of %s are enforced only when a timer starts gpulease reap%s", count(running, "live lease"), x.reapers(ctx))
		return
	}
	x.fail("guard", State, mend, "nobody enforces the deadlines of %s%s", count(running, "live lease"), x.reapers(ctx))
}

// A visit of a reaper counts as a guard for reaperFresh, as for a launch, and is
// worth a word for reaperShown: it comes by a timer.
const (
	reaperFresh = 15 * time.Minute
	reaperShown = 24 * time.Hour
)

// reapers says which reapers were here lately, as the end of a sentence.
func (x *examination) reapers(ctx context.Context) string {
	if x.ledger == nil {
		return ""
	}
	guards, err := x.ledger.Guards(ctx)
	if err != nil {
		return "" // the ledger's line says what is wrong with it
	}
	var seen []string
	for _, g := range guards {
		ago := x.now().Sub(g.Seen)
		if host, ok := strings.CutPrefix(g.Name, lease.GuardReap+" "); ok && ago >= 0 && ago < reaperShown {
			seen = append(seen, fmt.Sprintf("%s %d min ago", host, int(ago/time.Minute)))
		}
	}
	if len(seen) == 0 {
		return ""
	}
	return "; gpulease reap was seen on " + names(seen)
}
