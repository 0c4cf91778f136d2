package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

func TestAuditFindsWhatSomebodyChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	h := w.host()
	id := h.ok("launch_lease", map[string]any{"type": testType}).Lease
	w.stop(h, id)
	h.refused(lease.CodePolicyDenied, "launch_lease", map[string]any{"type": testType, "ttl_minutes": 6000})
	keyless := w.withKey("")

	code, out, errs := cli(t, keyless, "audit", "verify")
	require.Zero(t, code, errs)
	require.Contains(t, out, "is whole: no row was changed or removed")
	code, out, errs = cli(t, keyless, "audit", "show", id)
	require.Zero(t, code, errs)
	require.Contains(t, out, "launched as ")
	require.Regexp(t, `ended\s+\$`, out)
	code, out, errs = cli(t, keyless, "audit", "show", id, "--limit", "1", "--json")
	require.Zero(t, code, errs)
	require.Len(t, strings.Split(strings.TrimSpace(out), "\n"), 1)
	require.Contains(t, out, `"to":"ended"`)
	code, out, errs = cli(t, keyless, "audit", "show")
	require.Zero(t, code, errs)
	require.Regexp(t, `deny.*max_ttl: a TTL of 100h is longer`, out)
	require.Regexp(t, `allow.*`+id, out)
	code, _, errs = cli(t, keyless, "audit", "show", "aaaaaaaaaaaa")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "there is no lease")

	// The keeper may be there still, and write.
	db, err := sql.Open("sqlite", "file://"+filepath.Join(w.state(), "ledger.db")+"?_pragma=busy_timeout(30000)")
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `DROP TRIGGER events_unchanged; DROP TRIGGER decisions_kept;
		UPDATE events SET note = 'nothing to see' WHERE seq = 2; DELETE FROM decisions WHERE verdict = 'deny'`)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	code, out, errs = cli(t, keyless, "audit", "verify")
	require.Equal(t, 1, code)
	require.Contains(t, out, "events, row 2: it was changed, or a row before it was\n")
	require.Contains(t, out, "decisions, row 2: it is missing")
	require.Contains(t, errs, "2 places differ")
	code, out, _ = cli(t, keyless, "audit", "verify", "--json")
	require.Equal(t, 1, code)
	require.Contains(t, out, `"whole":false`)
	require.Contains(t, out, `{"table":"events","row":"row 2","what":`)
}

func TestAuditWithoutALedger(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{{"audit", "verify"}, {"audit", "show"}} {
		code, _, errs := cli(t, nil, append(args, "--state-dir", dir)...)
		require.Equal(t, 1, code)
		require.Contains(t, errs, "there is no ledger at ")
		require.NoDirExists(t, dir)
	}
	code, _, errs := cli(t, nil, "audit", "verify", "--ledger", "postgres://me:hunter2@db/x")
	require.Equal(t, 1, code)
	require.NotContains(t, errs, "hunter2")
}
