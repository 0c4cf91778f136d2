package policy

import "time"

// Patterns allows and denies names by globs: * stands for any run of characters, ? for one; upper and lower case are the same.
// Deny wins. An empty Allow allows every name.
type Patterns struct {
	Allow []string
	Deny  []string
}

// Caps are upper bounds in dollars. 0 is no cap.
type Caps struct {
	PerLease    Money // the worst case of one lease
	BurnPerHour Money // the price per hour of everything alive at once
	PerDay      Money // spent plus reserved, in the day, week and month of Policy.PeriodStarts
	PerWeek     Money
	PerMonth    Money
	Lifetime    Money // spent plus reserved, ever
}

// Limits are the rules that can be set for the whole account and again for each principal. Where both are set both bind. A zero
// value is no limit.
type Limits struct {
	Types           Patterns
	Regions         Patterns
	Images          Patterns // families or ids; Lambda's default image, when none is named, is "default"
	MaxPricePerHour Money
	DefaultTTL      time.Duration // for requests that give no TTL
	MaxTTL          time.Duration // all of a lease's TTL, extensions included
	IdleTimeout     time.Duration // idle for so long: ended

	MaxLeases          int // alive at once
	MaxGPUs            int // in use at once
	MaxLaunchesPerHour int

	Caps         Caps
	ApproveAbove Money // a worst case above this needs a person's approval; AlwaysAsk for every launch

	// LeasesOf are patterns of the principals whose leases may be seen and used besides the own ones.
	LeasesOf []string `json:",omitempty"` // without any, older hashes stay as they are
}

// AlwaysAsk as Limits.ApproveAbove has every launch approved. In the file it is `approve_above: 0`.
const AlwaysAsk Money = -1
