package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// trial is a request to put to a policy, without launching anything.
type trial struct {
	typ    string
	region string
	ttl    time.Duration
	price  string // dollars an hour; "" asks Lambda
	gpus   int
}

func newPolicyCheck(s *settings) *cobra.Command {
	var t trial
	c := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Read a policy file strictly, and try a request on it",
		Long: `check reads a policy file, FILE or the one in force, and says what is wrong with it.

With --type it puts a request to it and says what it decides, by which rules, what is left under each cap, and the
nearest request that passes. What was spent so far comes from the ledger, which is only read, and price, GPUs and
regions from Lambda; with --price and --gpus it needs no API key. Nothing is launched. It exits with 0 if the request
would be launched at once, and with 1 if it would be refused or wait for a person.

Of a tailnet and a firewall ruleset it says what can be seen without asking either, such as whether there is a key to
join with, and what it did not look at.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			if t.typ == "" {
				for _, name := range []string{"region", "ttl", "price", "gpus"} {
					if c.Flags().Changed(name) {
						return usageError(fmt.Errorf("--%s needs --type", name))
					}
				}
				return s.checkPolicyFile(c, args)
			}
			source := s.policySource()
			if len(args) == 1 {
				source.Path, source.Explicit = args[0], true
			}
			p, err := source.Current()
			if err != nil {
				return err
			}
			return s.try(c, p, t)
		},
	}
	f := c.Flags()
	f.StringVar(&t.typ, "type", "", "instance type to ask for")
	f.StringVar(&t.region, "region", "", "region (default: any where it is free)")
	f.DurationVar(&t.ttl, "ttl", 0, "TTL, such as 90m (default: the policy's)")
	f.StringVar(&t.price, "price", "", "price of the machine in dollars an hour (default: Lambda's)")
	f.IntVar(&t.gpus, "gpus", 0, "how many GPUs it has, with --price")
	return c
}

func (s *settings) checkPolicyFile(c *cobra.Command, args []string) error {
	path := s.policyPath
	if len(args) == 1 {
		path = args[0]
	}
	if len(args) == 0 && !s.policyIsGiven {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			_, err := fmt.Fprintf(c.OutOrStdout(), "there is no policy file at %s: the defaults are in force (policy show shows them, policy init writes a file)\n", path)
			return err
		}
	}
	p, err := policy.Load(path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s is fine (policy %s)\n", path, p.Hash())
	return errors.Join(err, s.printNetwork(c.OutOrStdout(), p))
}

// try puts a request to a policy and prints what it says.
func (s *settings) try(c *cobra.Command, p *policy.Policy, t trial) error {
	if t.ttl < 0 || t.ttl%time.Minute != 0 || t.ttl == 0 && c.Flags().Changed("ttl") {
		return usageError(fmt.Errorf("--ttl %s: give whole minutes, at least one", t.ttl))
	}
	w, err := s.wanted(c.Context(), p, t)
	if err != nil {
		return err
	}
	used, frozen, err := s.usageSoFar(c.Context(), p)
	if err != nil {
		return err
	}
	if w.requests[0].Region == "" {
		p = anywhere(p)
	}
	// As at a launch: of the regions that would do, the first that the policy takes.
	r := w.requests[0]
	d := policy.Evaluate(p, r, used, w.offers)
	for _, other := range w.requests[1:] {
		if d.Verdict != policy.Deny {
			break
		}
		if x := policy.Evaluate(p, other, used, w.offers); x.Verdict != policy.Deny {
			d, r = x, other
		}
	}
	if err := printTrial(c.OutOrStdout(), r, d, w.note, frozen); err != nil {
		return err
	}
	if err := s.printNetwork(c.OutOrStdout(), p); err != nil {
		return err
	}
	if d.Verdict != policy.Allow || frozen.On() || w.nowhere {
		return &exitError{code: 1}
	}
	return nil
}

// printNetwork says how machines would be reached, where the policy says that.
func (s *settings) printNetwork(w io.Writer, p *policy.Policy) error {
	var b strings.Builder
	for _, note := range s.networkNotes(p.Network) {
		fmt.Fprintln(&b, printable(note))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wanted is what a launch would try: one request for each region that would do,
// and what else could be had.
type wanted struct {
	requests []policy.Request
	offers   []policy.Offer
	nowhere  bool   // it is free nowhere that would do
	note     string // what has to be known beside the decision
}

func (s *settings) wanted(ctx context.Context, p *policy.Policy, t trial) (wanted, error) {
	r := policy.Request{
		Principal: s.principal, Type: t.typ, Region: t.region, Image: doctor.ImageFamily, GPUs: t.gpus,
		TTL: p.TTLFor(s.principal, t.ttl), BootAllowance: bootAllowance(t.gpus), StopAllowance: doctor.StopAllowance,
	}
	if t.price != "" {
		price, err := policy.ParseMoney(t.price)
		if err != nil {
			return wanted{}, usageError(fmt.Errorf("--price: %w", err))
		}
		r.PricePerHour = price
		w := wanted{requests: []policy.Request{r}}
		if r.Region == "" {
			w.note = "no --region was given, so the rules about regions were not asked"
		}
		return w, nil
	}
	types, err := s.types(ctx)
	if err != nil {
		return wanted{}, err
	}
	w := wanted{}
	var names, free []string
	for _, o := range types {
		it := o.InstanceType
		offer := policy.Offer{Type: it.Name, GPUs: it.Specs.GPUs, PricePerHour: policy.Cents(int64(it.PriceCentsPerHour)), BootAllowance: bootAllowance(it.Specs.GPUs)}
		names = append(names, it.Name)
		for _, region := range o.Regions {
			offer.Region = region.Name
			w.offers = append(w.offers, offer)
			if it.Name == t.typ {
				free = append(free, region.Name)
			}
		}
		if it.Name == t.typ {
			r.GPUs, r.PricePerHour, r.BootAllowance = offer.GPUs, offer.PricePerHour, offer.BootAllowance
		}
	}
	if !slices.Contains(names, t.typ) {
		return wanted{}, fmt.Errorf("there is no instance type %q; Lambda has %s", t.typ, strings.Join(names, ", "))
	}
	switch {
	case len(free) == 0:
		w.nowhere, w.note = true, "it is free nowhere now, so a launch would fail with no_capacity"
	case r.Region == "":
		for _, region := range free {
			r.Region = region
			w.requests = append(w.requests, r)
		}
		return w, nil
	case !slices.Contains(free, r.Region):
		w.nowhere, w.note = true, fmt.Sprintf("it is not free in %s now, so a launch would fail with no_capacity; it is in %s", r.Region, strings.Join(free, ", "))
	}
	w.requests = []policy.Request{r}
	return w, nil
}

// types asks Lambda for what there is.
func (s *settings) types(ctx context.Context) ([]lambda.InstanceTypeOffer, error) {
	key, err := s.apiKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("the price is Lambda's to say, and there is no usable API key (give --price and --gpus instead): %w", err)
	}
	cloud, err := s.reader(key)
	if err != nil {
		return nil, err
	}
	types, err := cloud.InstanceTypes(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask Lambda for prices: %w", err)
	}
	return types, nil
}

// anywhere is the policy without its rules about regions.
func anywhere(p *policy.Policy) *policy.Policy {
	p = p.Clone()
	p.Regions = policy.Patterns{}
	for name, l := range p.Principals {
		l.Regions = policy.Patterns{}
		p.Principals[name] = l
	}
	return p
}

func bootAllowance(gpus int) time.Duration {
	if gpus > 1 {
		return doctor.BootMany
	}
	return doctor.BootOne
}

// usageSoFar reads the ledger's copy. Where there is no ledger nothing was spent.
func (s *settings) usageSoFar(ctx context.Context, p *policy.Policy) (u policy.Usage, f lease.Freeze, err error) {
	copied, err := doctor.CopyLedger(ctx, s.ledgerPath)
	if errors.Is(err, fs.ErrNotExist) {
		return u, f, nil
	}
	if err != nil {
		return u, f, fmt.Errorf("what was spent so far cannot be read: %w", err)
	}
	now := time.Now()
	day, week, month := p.PeriodStarts(now)
	u, err = copied.Usage(ctx, s.principal, now, lease.Periods{Day: day, Week: week, Month: month})
	if err == nil {
		f, err = copied.Frozen(ctx)
	}
	return u, f, errors.Join(err, copied.Close())
}

func printTrial(w io.Writer, r policy.Request, d policy.Decision, note string, frozen lease.Freeze) error {
	var b strings.Builder
	what := r.Type
	if r.Region != "" {
		what += " in " + r.Region
	}
	fmt.Fprintf(&b, "%s for %s at %s/h, asked for by %s: %s\n%s\n", printable(what), span(r.TTL), r.PricePerHour, printable(r.Principal), d.Verdict, d.Explain())
	if d.LongestTTL > 0 {
		fmt.Fprintf(&b, "longest TTL that is not denied now: %s\n", span(d.LongestTTL))
	}
	if note != "" {
		fmt.Fprintln(&b, printable(note))
	}
	if frozen.On() {
		fmt.Fprintln(&b, frozenLine(frozen))
	}
	capTable(&b, d.Caps)
	_, err := io.WriteString(w, b.String())
	return err
}
