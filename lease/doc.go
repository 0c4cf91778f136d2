// Package lease is the heart of gpulease: the life of one rented GPU machine,
// from the question what it would cost to the receipt.
//
// A [Lease] is one durable row. The row is the intent, the reservation and the
// lease at once: it is written before the launch call, it holds the worst-case
// cost while anything can still be billed, and it reaches its one final state,
// [Ended], only when the cloud itself has shown the instance to be gone. Every
// change of a row is a compare-and-swap on its version, so any number of
// processes may work on one [Store].
//
// [Manager] offers what an agent asks for (quote, launch, look, run, stop).
// [Manager.Run] is the reconciler: it walks leases towards what their rows say,
// enforces deadlines, confirms stops and settles. One process per state
// directory leads; the others only ask.
//
// The package declares the cloud, the store and the machine that it needs and
// has no clock and no randomness of its own. It imports the types of lambda,
// remote and policy and knows nothing of MCP, of SQL or of the command line.
package lease
