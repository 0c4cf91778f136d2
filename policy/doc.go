// Package policy decides whether a GPU lease may be taken, and says why.
//
// [Evaluate] is a pure function of a [Policy], a [Request] and the [Usage] so far: no clock, no network, no database. It
// checks every rule, the account's and the principal's, and reports all that deny at once, each with its value and the place
// where it is set, together with what is left under each cap and the nearest request that would pass.
//
// A policy comes from [Default], or from a YAML file by [Load], which is strict: what it does not understand is an error with
// its line and column, never a default. [Source] follows a file over time, so that a change takes effect at the next decision.
//
// Money is integer micro-dollars ([Money]); there is no float in the package.
//
// The package does not count what was spent (the ledger does), does not reserve anything, and never changes a Policy that it
// has handed out: values are read by many goroutines at once, so treat a *Policy as read-only and change a [Policy.Clone].
package policy
