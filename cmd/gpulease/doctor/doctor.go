// Package doctor looks at everything that a launch depends on and says what is
// wrong with it: the key, the account, the clock, the policy, the ledger, the
// state directory, who guards the leases, what Lambda has to offer and what was
// left behind in the account.
//
// It changes nothing. [Cloud], all that it knows of Lambda, has no method that
// changes anything, and the ledger is read from a copy. It repairs nothing
// either: each line that is not well names the command, or the step, that mends
// it.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// Config is what doctor looks at. All of it but the fields that are said to be
// optional is required.
type Config struct {
	APIURL    string
	KeySource string // the setting that the key came from, "" where there is none
	KeyFile   string // the file that holds the key; optional
	KeyErr    error  // why there is no key; nil where there is one
	Cloud     Cloud  // nil with KeyErr

	Policy     lease.PolicySource
	PolicyPath string // where the policy file is or would be
	Principal  string

	LedgerPath string
	StateDir   string
	// KeeperRuns says whether a keeper holds its lock in the state directory.
	KeeperRuns func() (bool, error)

	Tailnet Tailnet // optional, unless the policy has machines join one

	Now func() time.Time
	// Redact is put to every text before it is kept; optional.
	Redact func(string) string
}

// Defaults of package lease that the checks need. A test holds them to it.
const (
	ImageFamily   = "lambda-stack-24-04"
	BootOne       = 15 * time.Minute
	BootMany      = 30 * time.Minute
	StopAllowance = 12 * time.Minute
)

// Finding is how a check came out.
type Finding string

// The findings. A warning does not stop a launch; a failure does, or is money
// that is being lost.
const (
	OK   Finding = "ok"
	Warn Finding = "warn"
	Fail Finding = "fail"
)

// Line is the outcome of one check.
type Line struct {
	Check   string  `json:"check"`
	Class   Class   `json:"class"`
	Finding Finding `json:"finding"`
	Text    string  `json:"text"`
	Mend    string  `json:"mend,omitempty"` // the command or step that mends it
}

// Report is everything that was found, in the order of the checks.
type Report struct {
	Lines []Line
	At    time.Time
}

// Failed is the class that decides the exit code: of all classes with a failure
// the one to mend first. It is false when nothing has failed.
func (r Report) Failed() (Class, bool) {
	for _, c := range Classes() {
		if slices.ContainsFunc(r.Lines, func(l Line) bool { return l.Finding == Fail && l.Class == c }) {
			return c, true
		}
	}
	return "", false
}

// ExitCode is 0 when nothing has failed, and otherwise the code of [Report.Failed].
func (r Report) ExitCode() int {
	c, failed := r.Failed()
	if !failed {
		return 0
	}
	return c.ExitCode()
}

// Count is how many lines have the finding.
func (r Report) Count(f Finding) int {
	n := 0
	for _, l := range r.Lines {
		if l.Finding == f {
			n++
		}
	}
	return n
}

// examination is one run of doctor and what it has learnt so far.
type examination struct {
	Config
	began time.Time
	lines []Line

	policy  *policy.Policy // nil when it cannot be read
	ledger  *Copy          // nil when there is none, or it cannot be read
	noFile  bool           // there is no ledger yet, which is fine
	live    map[lease.ID]lease.Lease
	ended   map[lease.ID]lease.Lease
	account readings
}

// Run makes all checks. It always ends with a report: what cannot be found out is
// a line of its own. ctx bounds it; a run makes about eight requests at the pace
// that Lambda allows.
func Run(ctx context.Context, c Config) Report {
	x := &examination{Config: c}
	began := c.Now()
	reached := x.reach(ctx)
	x.began = began.Add(x.now().Sub(x.Now())) // by Lambda's clock, where that is the one that counts
	x.clock()
	x.checkPolicy()
	x.tailnet(ctx)
	keyFiles := x.keyFiles() // before the ledger: what is older than the ledger's copy is in it
	x.openLedger(ctx)
	if x.ledger != nil {
		defer x.ledger.Close()
	}
	x.stateDir()
	x.leftKeyFiles(keyFiles)
	x.guard(ctx)
	if reached {
		x.read(ctx)
		x.regions()
		x.images()
		x.capacity(ctx)
		x.firewall()
		x.rulesets()
		x.filesystems()
		x.limits()
		x.leftovers(ctx)
	} else {
		x.warn("unchecked", Network, "", "not checked, since Lambda did not answer: regions, images, capacity, firewall, filesystems, limits, leftovers")
	}
	return Report{Lines: x.lines, At: began}
}

func (x *examination) ok(check string, class Class, format string, args ...any) {
	x.add(check, class, OK, "", format, args...)
}

func (x *examination) warn(check string, class Class, mend, format string, args ...any) {
	x.add(check, class, Warn, mend, format, args...)
}

func (x *examination) fail(check string, class Class, mend, format string, args ...any) {
	x.add(check, class, Fail, mend, format, args...)
}

func (x *examination) add(check string, class Class, f Finding, mend, format string, args ...any) {
	l := Line{Check: check, Class: class, Finding: f, Text: oneLine(fmt.Sprintf(format, args...)), Mend: mend}
	if x.Redact != nil {
		l.Text, l.Mend = x.Redact(l.Text), x.Redact(l.Mend)
	}
	x.lines = append(x.lines, l)
}

// oneLine keeps a text on its line, whatever an error or a name holds.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}

// names lists some names, and how many more there are.
func names(all []string) string {
	const most = 6
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

// now is our time, corrected as package lease does it.
func (x *examination) now() time.Time {
	t := x.Now()
	if x.Cloud == nil {
		return t
	}
	if skew, answer := x.Cloud.ClockSkew(); answer > 0 && (skew > time.Minute || skew < -time.Minute) {
		t = t.Add(skew)
	}
	return t
}

var _ Cloud = (*lambda.Client)(nil)
