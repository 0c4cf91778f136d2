//go:build !race

package ledger_test

const rapidChecks = "100"
