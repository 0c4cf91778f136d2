//go:build race

package ledger_test

// The race detector makes SQLite, which is Go here, ten times slower.
const rapidChecks = "20"
