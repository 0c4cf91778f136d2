// Package lambdatest is a simulated Lambda Cloud: an HTTP server that answers
// like the real one, for tests of anything that talks to Lambda's public API.
//
// It stands to package lambda as net/http/httptest stands to net/http, but it
// shares no type with it: what goes over the wire is written down here a second
// time, from Lambda's OpenAPI document, so that a mistake in the client cannot
// hide behind the same mistake in its test.
//
//	sim := lambdatest.Start(t, lambdatest.Config{Virtual: true})
//	client := newClient(sim.URL(), sim.APIKey())
//	...                        // launch something
//	sim.Advance(5 * time.Minute) // it has booted
//	sim.Bill().Total             // what Lambda would ask for, in micro-dollars
//
// The simulator keeps state: keys, filesystems, firewall rules and instances
// that boot, run, are billed by the minute and go away. Statuses follow from the
// clock, which is the real one or, with [Config.Virtual], one that stands still
// until [Server.Advance]. With [Config.SSHHosts] each instance is also an SSH
// host on a loopback address that runs real commands.
//
// Failures are asked for with [Server.Inject], by a scenario file or over HTTP
// under /_sim/; see [Fault].
//
// It does not simulate support tickets and the InfiniBand fabric, and it does not
// know what Lambda's document leaves open: where sources disagree, the doc
// comments of Config say what was chosen.
package lambdatest
