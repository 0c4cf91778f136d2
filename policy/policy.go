package policy

import (
	"time"
)

// Policy is a whole policy: the account's limits, and the same again per principal, all binding together. Read-only once made;
// change a Clone.
type Policy struct {
	Limits

	// Principals are further limits for those who ask under these names.
	Principals map[string]Limits

	// TimeZone is where days, weeks and months begin; nil is UTC.
	TimeZone *time.Location

	// RequireGuard refuses a launch while nobody (keeper, server, reap) would end the lease. The caller enforces it: it knows
	// the guards.
	RequireGuard bool

	path    string            // the file that it came from; "" is none
	sources map[string]string // rule -> where it is set; a rule that is not there is a default
}
