package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// key is one setting of Limits: how the file spells it, how its text is read, and how it is shown. Exactly one of list and set
// is there.
type key struct {
	name string
	list func(*Limits) *[]string
	set  func(l *Limits, text string) error
	show func(*Limits) string // "none" for what is not set
}

const none = "none"

// limitKeys are the settings that the account and each principal can have, in the order in which they are shown.
var limitKeys = []key{
	listKey("types.allow", func(l *Limits) *[]string { return &l.Types.Allow }),
	listKey("types.deny", func(l *Limits) *[]string { return &l.Types.Deny }),
	listKey("regions.allow", func(l *Limits) *[]string { return &l.Regions.Allow }),
	listKey("regions.deny", func(l *Limits) *[]string { return &l.Regions.Deny }),
	listKey("images.allow", func(l *Limits) *[]string { return &l.Images.Allow }),
	listKey("images.deny", func(l *Limits) *[]string { return &l.Images.Deny }),
	moneyKey("max_price_per_hour", func(l *Limits) *Money { return &l.MaxPricePerHour }),
	timeKey("default_ttl", false, func(l *Limits) *time.Duration { return &l.DefaultTTL }),
	timeKey("max_ttl", false, func(l *Limits) *time.Duration { return &l.MaxTTL }),
	timeKey("idle_timeout", true, func(l *Limits) *time.Duration { return &l.IdleTimeout }),
	countKey("max_leases", func(l *Limits) *int { return &l.MaxLeases }),
	countKey("max_gpus", func(l *Limits) *int { return &l.MaxGPUs }),
	countKey("max_launches_per_hour", func(l *Limits) *int { return &l.MaxLaunchesPerHour }),
	moneyKey("caps.per_lease", func(l *Limits) *Money { return &l.Caps.PerLease }),
	moneyKey("caps.burn_per_hour", func(l *Limits) *Money { return &l.Caps.BurnPerHour }),
	moneyKey("caps.per_day", func(l *Limits) *Money { return &l.Caps.PerDay }),
	moneyKey("caps.per_week", func(l *Limits) *Money { return &l.Caps.PerWeek }),
	moneyKey("caps.per_month", func(l *Limits) *Money { return &l.Caps.PerMonth }),
	moneyKey("caps.lifetime", func(l *Limits) *Money { return &l.Caps.Lifetime }),
	{name: "approve_above", set: setApproval, show: showApproval},
	listKey("leases_of", func(l *Limits) *[]string { return &l.LeasesOf }),
}

const (
	keyTimeZone     = "time_zone"
	keyRequireGuard = "require_guard"
	keyIdleMode     = "idle_mode"
	keyApprovalTime = "approval_time"
	keyUntracked    = "count_untracked"
	keyPrincipals   = "principals"
)

// wholeKeys are the scalar settings of the policy as a whole.
var wholeKeys = []string{keyIdleMode, keyApprovalTime, keyTimeZone, keyRequireGuard, keyUntracked}

func findKey(name string) (key, bool) {
	i := slices.IndexFunc(limitKeys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return limitKeys[i], true
}

func listKey(name string, at func(*Limits) *[]string) key {
	return key{name: name, list: at, show: func(l *Limits) string {
		if len(*at(l)) == 0 {
			return none
		}
		return strings.Join(*at(l), ", ")
	}}
}

func moneyKey(name string, at func(*Limits) *Money) key {
	return key{name: name,
		set: func(l *Limits, text string) error {
			m, err := readCap(text)
			if err == nil && m == 0 && text != none {
				err = fmt.Errorf("0 could be read as nothing or as no limit: write none for no limit; to allow nothing, deny types [\"*\"]")
			}
			if err != nil {
				return err
			}
			*at(l) = m
			return nil
		},
		show: func(l *Limits) string {
			if *at(l) == 0 {
				return none
			}
			return at(l).String()
		}}
}

// readCap reads an amount in dollars that is not negative, or none as 0.
func readCap(text string) (Money, error) {
	if text == none {
		return 0, nil
	}
	m, err := ParseMoney(text)
	if err != nil {
		return 0, fmt.Errorf("%w: want dollars such as 25 or 1.29, or none", err)
	}
	if m < 0 {
		return 0, fmt.Errorf("%s is negative: want an amount above 0, or none", m)
	}
	return m, nil
}

func setApproval(l *Limits, text string) error {
	m, err := readCap(text)
	if err != nil {
		return err
	}
	if m == 0 && text != none {
		m = AlwaysAsk
	}
	l.ApproveAbove = m
	return nil
}

func showApproval(l *Limits) string {
	switch l.ApproveAbove {
	case 0:
		return none
	case AlwaysAsk:
		return "$0.00 (always)"
	}
	return l.ApproveAbove.String()
}

func timeKey(name string, optional bool, at func(*Limits) *time.Duration) key {
	return key{name: name,
		set: func(l *Limits, text string) error {
			if text == none && optional {
				*at(l) = 0
				return nil
			}
			d, err := readSpan(text)
			if err != nil {
				return err
			}
			*at(l) = d
			return nil
		},
		show: func(l *Limits) string {
			if *at(l) == 0 {
				return none
			}
			return span(*at(l))
		}}
}

var spanForms = regexp.MustCompile(spanPattern)

// readSpan reads a length of time: whole minutes, above 0, at most a year, with its unit.
func readSpan(text string) (time.Duration, error) {
	const want = "want hours and minutes such as 8h, 90m or 1h30m"
	if digits(text) {
		return 0, fmt.Errorf("%q has no unit: %s", clip(text), want)
	}
	if text == none {
		return 0, fmt.Errorf("none is not possible here, for every lease has a deadline: %s", want)
	}
	if !spanForms.MatchString(text) {
		return 0, fmt.Errorf("%q is not a length of time in whole minutes, by which Lambda bills: %s", clip(text), want)
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil || d > longestTTL:
		return 0, fmt.Errorf("%q is longer than a year", clip(text))
	case d <= 0:
		return 0, fmt.Errorf("%q is not above 0: %s", clip(text), want)
	}
	return d, nil
}

func countKey(name string, at func(*Limits) *int) key {
	return key{name: name,
		set: func(l *Limits, text string) error {
			if text == none {
				*at(l) = 0
				return nil
			}
			n, err := strconv.ParseInt(text, 10, 32)
			switch {
			case err != nil || !digits(strings.TrimPrefix(text, "-")) || len(text) > 1 && text[0] == '0':
				return fmt.Errorf("%q is not a whole number: want one such as 2, or none", clip(text))
			case n < 0:
				return fmt.Errorf("%d is negative: want a number above 0, or none", n)
			case n == 0:
				return fmt.Errorf("0 could be read as nothing or as no limit: write none for no limit; to allow nothing, deny types [\"*\"]")
			}
			*at(l) = int(n)
			return nil
		},
		show: func(l *Limits) string {
			if *at(l) == 0 {
				return none
			}
			return strconv.Itoa(*at(l))
		}}
}

// setList sets a list of patterns; bad is the index of the pattern at fault, -1 for the list as a whole.
func (k key) setList(l *Limits, patterns []string) (bad int, err error) {
	if len(patterns) == 0 && strings.HasSuffix(k.name, ".allow") {
		return -1, fmt.Errorf("an empty list would allow nothing: write [\"*\"] to allow all, or deny [\"*\"] to allow nothing")
	}
	if len(patterns) > maxEntries {
		return -1, fmt.Errorf("more than %d patterns", maxEntries)
	}
	for i, s := range patterns {
		if err := checkPattern(s); err != nil {
			return i, err
		}
	}
	*k.list(l) = slices.Clone(patterns)
	return -1, nil
}

func readZone(text string) (*time.Location, error) {
	if text == "" || text == "Local" {
		return nil, fmt.Errorf("%q is not a time zone: want a name such as UTC or Europe/Berlin, for it must mean the same on every machine", text)
	}
	loc, err := time.LoadLocation(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not a known time zone: want a name such as UTC or Europe/Berlin", clip(text))
	}
	return loc, nil
}

func readBool(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", clip(text))
}

func readIdleMode(text string) (IdleMode, error) {
	switch m := IdleMode(text); m {
	case IdleEnforce, IdleWarn, IdleOff:
		return m, nil
	}
	return "", fmt.Errorf("%q is no idle mode: want enforce, warn or off", clip(text))
}

// checkPrincipal refuses names that could not be told apart in a rule or a message.
func checkPrincipal(name string) error {
	if name == "" || len(name) > 128 {
		return fmt.Errorf("the name of a principal has 1 to 128 characters")
	}
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("principal %q: %q cannot be in the name of a principal", clip(name), c)
		}
	}
	return nil
}

// With is a copy of p with one rule set from text and attributed to source, such as "flag --max-ttl" or "env X". The rule is
// named as in decisions ("caps.per_day", "principals.ci.max_ttl"); a list of patterns is separated by commas. Text is read as
// strictly as in the file.
func (p *Policy) With(rule, text, source string) (*Policy, error) {
	c := p.Clone()
	if err := c.put(rule, text); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", source, rule, err)
	}
	if c.sources == nil {
		c.sources = make(map[string]string)
	}
	c.sources[rule] = source
	return c, nil
}

func (p *Policy) put(rule, text string) (err error) {
	if name, ok := strings.CutPrefix(rule, keyNetwork+"."); ok {
		_, err := p.Network.put(name, splitList(text))
		return err
	}
	switch rule {
	case keyTimeZone:
		p.TimeZone, err = readZone(text)
		return err
	case keyRequireGuard:
		p.RequireGuard, err = readBool(text)
		return err
	case keyUntracked:
		p.CountUntracked, err = readBool(text)
		return err
	case keyIdleMode:
		p.IdleMode, err = readIdleMode(text)
		return err
	case keyApprovalTime:
		p.ApprovalTTL, err = readSpan(text)
		return err
	}
	limits, name, who := &p.Limits, rule, ""
	if rest, ok := strings.CutPrefix(rule, keyPrincipals+"."); ok {
		i := slices.IndexFunc(limitKeys, func(k key) bool { return strings.HasSuffix(rest, "."+k.name) })
		if i < 0 {
			return fmt.Errorf("no such rule")
		}
		name = limitKeys[i].name
		who = strings.TrimSuffix(rest, "."+name)
		if err := checkPrincipal(who); err != nil {
			return err
		}
		own := p.Principals[who]
		limits = &own
	}
	k, ok := findKey(name)
	if !ok {
		return fmt.Errorf("no such rule")
	}
	if k.list != nil {
		_, err = k.setList(limits, splitList(text))
	} else {
		err = k.set(limits, text)
	}
	if err != nil || who == "" {
		return err
	}
	if p.Principals == nil {
		p.Principals = make(map[string]Limits)
	}
	p.Principals[who] = *limits
	return nil
}

func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	var list []string
	for s := range strings.SplitSeq(text, ",") {
		list = append(list, strings.TrimSpace(s))
	}
	return list
}
