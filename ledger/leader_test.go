package ledger_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/ledger/postgrestest"
)

// How long the server may take to notice that a connection is gone.
const (
	waitForServer = 10 * time.Second
	tick          = 10 * time.Millisecond
)

func leads(t *testing.T, l *ledger.Leader, account string) bool {
	t.Helper()
	lead, err := l.Try(account)
	require.NoError(t, err)
	return lead
}

func TestOneLeads(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address := b.fresh(t)
		one, two := open(t, address).Leader(), open(t, address).Leader()
		one.Yield() // what it does not have
		require.True(t, leads(t, one, "acct"))
		require.True(t, leads(t, one, "acct"), "and goes on leading")
		require.False(t, leads(t, two, "acct"))
		require.True(t, leads(t, two, "other"), "another account is another matter")
		require.True(t, leads(t, open(t, b.fresh(t)).Leader(), "acct"), "and so is another ledger")
		require.False(t, leads(t, two, "acct"))
		require.True(t, leads(t, one, "acct"))

		one.Yield()
		require.True(t, leads(t, two, "acct"))
		require.False(t, leads(t, one, "acct"))
		require.True(t, leads(t, one, "other"), "it was given back for the other account")
		require.NoError(t, two.Close())
		require.True(t, leads(t, one, "acct"))
		require.NoError(t, one.Close())
		require.NoError(t, one.Close())
	})
}

// Who has lost the connection has lost the lead, and notices.
func TestTheLeadEndsWithItsConnection(t *testing.T) {
	address := freshOnServer(t)
	throughIt, p := throughProxy(t, address)
	one, two := open(t, throughIt).Leader(), open(t, address).Leader()
	defer func() { require.NoError(t, one.Close()); require.NoError(t, two.Close()) }()
	require.True(t, leads(t, one, "acct"))
	require.False(t, leads(t, two, "acct"))
	p.set(refusing)
	lead, err := one.Try("acct")
	require.ErrorIs(t, err, ledger.ErrAway)
	require.False(t, lead)
	require.Eventually(t, func() bool { return leads(t, two, "acct") }, waitForServer, tick)
	p.set(passing)
	require.False(t, leads(t, one, "acct"), "the other has it now")

	postgrestest.Shared(t).Exec(t, "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
	require.Eventually(t, func() bool { return leads(t, one, "acct") }, waitForServer, tick)
	require.False(t, leads(t, two, "acct"))
}
