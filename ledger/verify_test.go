package ledger_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// audited is a ledger with 5 events, 3 decisions and 2 leases, the first ended.
func audited(t *testing.T, b backend) string {
	address, l := closedOn(t, b)
	db := open(t, address)
	l.State, l.Detail = lease.Booting, "second"
	l = update(t, db, l)
	end(t, db, l, 500_000, noon)
	reserve(t, db, intent("b", 1))
	require.NoError(t, db.Correct(t.Context(), l.ID, 1, noon, "invoice"))
	_, err := db.Reserve(t.Context(), intent("b", 9), noon, periods, under(1, 9))
	require.NoError(t, err)
	require.NoError(t, db.Verify(t.Context()))
	return address
}

func TestVerifyFinds(t *testing.T) {
	for _, c := range []struct {
		name, script, table, row string
	}{
		{"a changed note", "UPDATE events SET note = 'nothing to see' WHERE seq = 2", "events", "row 2"},
		{"a changed time", "UPDATE events SET at = at + 1 WHERE seq = 1", "events", "row 1"},
		{"a changed cost", "UPDATE events SET cost = 1 WHERE seq = 3", "events", "row 3"},
		{"a changed correction", "UPDATE events SET cost = 0 WHERE seq = 5", "events", "row 5"},
		{"a changed hash", "UPDATE events SET hash = ZEROES WHERE seq = 4", "events", "row 4"},
		{"a first row removed", "DELETE FROM events WHERE seq = 1", "events", "row 1"},
		{"a row removed", "DELETE FROM events WHERE seq = 3", "events", "row 3"},
		{"a row removed and the gap closed", "DELETE FROM events WHERE seq = 3; UPDATE events SET seq = seq - 1 WHERE seq > 3", "events", "row 3"},
		{"the last row removed", "DELETE FROM events WHERE seq = 5", "events", "row 5"},
		{"all rows removed", "DELETE FROM events", "events", "row 1"},
		{"rows swapped", "UPDATE events SET seq = -2 WHERE seq = 2; UPDATE events SET seq = 2 WHERE seq = 3; UPDATE events SET seq = 3 WHERE seq = -2", "events", "row 2"},
		{"a row added", "INSERT INTO events SELECT seq + 1, at, lease, version, was, became, note, cost, digest, hash FROM events WHERE seq = 5", "events", "row 6"},
		{"a denial changed", "UPDATE decisions SET verdict = 'allow' WHERE seq = 3", "decisions", "row 3"},
		{"a denial removed", "DELETE FROM decisions WHERE seq = 3", "decisions", "row 3"},
		{"a cheaper lease", "UPDATE leases SET cost = 1 WHERE seq = 1", "leases", "it is not what its last event says"},
		{"a smaller reservation", "UPDATE leases SET reserved = 0 WHERE seq = 2", "leases", "it is not what its last event says"},
		{"a lease removed", "DELETE FROM leases WHERE seq = 1", "leases", "it is missing"},
		{"a lease smuggled in", "UPDATE leases SET id = 'aaaaaaaaaaaa' WHERE seq = 2", "leases", "no event made it"},
		{"another ledger's trail", "UPDATE meta SET value = 'zzzz' WHERE key = 'ledger_id'", "events", "row 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, b backend) {
				address := audited(t, b)
				b.raw(t, address, b.unlock+strings.ReplaceAll(c.script, "ZEROES", b.zeroes))
				err := open(t, address).Verify(t.Context())
				var tampered *ledger.TamperError
				require.ErrorAs(t, err, &tampered)
				require.Equal(t, c.table, tampered.Table)
				require.ErrorContains(t, err, c.row)
			})
		})
	}
}

func TestTheTrailCannotBeEdited(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		address := audited(t, b)
		scripts := map[string]string{
			"UPDATE events SET note = ''": "append-only",
			"DELETE FROM events":          "append-only",
			"INSERT INTO events SELECT seq + 2, at, lease, version, was, became, 'new', cost, digest, hash FROM events WHERE seq = 5": "append-only",
			"UPDATE decisions SET verdict = 'allow'":           "append-only",
			"DELETE FROM decisions":                            "append-only",
			"DELETE FROM leases":                               "never deleted",
			"UPDATE leases SET cost = 0 WHERE state = 'ended'": "final",
		}
		if b.name == onSQLite.name {
			scripts["INSERT OR REPLACE INTO events SELECT seq, at, lease, version, was, became, 'new', cost, digest, hash FROM events WHERE seq = 2"] = "append-only"
		} else {
			scripts["TRUNCATE events"] = "append-only"
			scripts["TRUNCATE decisions"] = "append-only"
			scripts["TRUNCATE leases, events"] = "never deleted"
		}
		for script, want := range scripts {
			require.ErrorContains(t, b.try(t, address, script), want, script)
		}
		require.NoError(t, open(t, address).Verify(t.Context()))
	})
}

func TestDecisionsAreKept(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		db := open(t, b.fresh(t))
		ok := intent("alice", 2*policy.Dollar)
		_, err := db.Reserve(t.Context(), ok, noon, periods, under(3*policy.Dollar, 2*policy.Dollar))
		require.NoError(t, err)
		_, err = db.Reserve(t.Context(), intent("bob", 2*policy.Dollar), noon, periods, under(3*policy.Dollar, 2*policy.Dollar))
		require.NoError(t, err)
		l, err := db.Get(t.Context(), ok.ID)
		require.NoError(t, err)
		_, _, err = db.Rereserve(t.Context(), l, noon, periods, "", under(3*policy.Dollar, 9*policy.Dollar))
		require.NoError(t, err)

		denied := []policy.Violation{{Rule: "caps.lifetime", Limit: "$3.00"}}
		all := []ledger.Decision{
			{At: noon, Principal: "alice", Verdict: policy.Deny, WorstCase: 9 * policy.Dollar, PolicyHash: "hash", Lease: ok.ID, Violations: denied},
			{At: noon, Principal: "bob", Verdict: policy.Deny, WorstCase: 2 * policy.Dollar, PolicyHash: "hash", Violations: denied},
			{At: noon, Principal: "alice", Verdict: policy.Allow, WorstCase: 2 * policy.Dollar, PolicyHash: "hash", Lease: ok.ID, Violations: []policy.Violation{}},
		}
		got, err := db.Decisions(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, all, got)
		got, err = db.Decisions(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, all[:1], got)
	})
}

func TestCorrections(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		db := open(t, b.fresh(t))
		l := reserve(t, db, intent("alice", policy.Dollar))
		require.ErrorIs(t, db.Correct(t.Context(), l.ID, 1, noon, ""), ledger.ErrTransition)
		require.ErrorIs(t, db.Correct(t.Context(), newID(), 1, noon, ""), lease.ErrNotFound)
		yesterday := periods.Day.Add(-1e9)
		l = end(t, db, l, 100, yesterday)

		require.NoError(t, db.Correct(t.Context(), l.ID, 50, noon, "billed longer"))
		require.NoError(t, db.Correct(t.Context(), l.ID, -150, noon, "refunded"))
		require.ErrorIs(t, db.Correct(t.Context(), l.ID, -1, noon, ""), ledger.ErrInvalid)
		require.NoError(t, db.Correct(t.Context(), l.ID, 7, noon, "after all"))

		u, err := db.Usage(t.Context(), "alice", noon, periods)
		require.NoError(t, err)
		require.Equal(t, policy.Totals{Week: 7, Month: 7, Lifetime: 7, LaunchesLastHour: 1}, u.Principal, "in the periods in which it ended")
		require.Equal(t, u.Principal, u.Account)
		got, err := db.Get(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, l, got, "the settlement stays as it was")
		h, err := db.History(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, lease.Event{At: noon, From: lease.Ended, To: lease.Ended, Note: "refunded", Cost: -150, Lease: l.ID}, h[3])
		require.NoError(t, db.Verify(t.Context()))
	})
}

// A sum that does not fit must never wrap around into a budget.
func TestSumsDoNotWrap(t *testing.T) {
	onBoth(t, func(t *testing.T, b backend) {
		db := open(t, b.fresh(t))
		reserve(t, db, intent("alice", policy.Unlimited))
		_, err := db.Reserve(t.Context(), intent("bob", policy.Dollar), noon, periods, allow)
		require.NoError(t, err)
		_, err = db.Reserve(t.Context(), intent("bob", policy.Dollar), noon, periods, allow)
		require.ErrorIs(t, err, ledger.ErrInvalid)
		_, err = db.Reserve(t.Context(), intent("alice", policy.Dollar), noon, periods, allow)
		require.Error(t, err)
	})
}
