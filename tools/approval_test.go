package tools_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

// phone is a person who can be asked.
type phone struct {
	about lease.ID
	says  func(ctx context.Context, q tools.Question) (tools.Reply, error)
	asked []tools.Question
}

func (p *phone) About() lease.ID { return p.about }

func (p *phone) Ask(ctx context.Context, q tools.Question) (tools.Reply, error) {
	p.asked = append(p.asked, q)
	return p.says(ctx, q)
}

func yes(context.Context, tools.Question) (tools.Reply, error) {
	return tools.Reply{Yes: true, By: "desk 2"}, nil
}

func waiting() lease.Lease {
	return lease.Lease{
		ID: leaseID, State: lease.AwaitingApproval, Type: "gpu_1x_a10", GPUs: 1, Principal: "ann", Purpose: "one\nrequest: two",
		Price: 1_290_000, TTL: time.Hour, CreatedAt: noon, DecideBy: noon.Add(time.Hour), Detail: "waits for a person: gpulease approve abcdefghijkl",
	}
}

// desk with a request that waits.
func waitingDesk() *desk {
	d := &desk{row: waiting(), launch: func(context.Context, lease.LaunchRequest) (lease.Lease, error) { return waiting(), nil }}
	d.approve = func(shown lease.Lease, by string) (lease.Lease, error) {
		d.row.ApprovedAt, d.row.ApprovedBy = noon, by
		d.then = []lease.Lease{{ID: leaseID, State: lease.Booting, Type: shown.Type}}
		return d.row, nil
	}
	return d
}

func launchAsking(t *testing.T, d *desk, p *phone) (map[string]any, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tools.WithAsker(t.Context(), p), time.Minute)
	defer cancel()
	r, err := useIn(ctx, t, tools.Deps{Leases: d}, "launch_lease", `{"type":"gpu_1x_a10"}`)
	if err != nil {
		return nil, err
	}
	return fields(t, r), nil
}

func TestAPersonsYesLaunches(t *testing.T) {
	d, p := waitingDesk(), &phone{says: yes}
	got, err := launchAsking(t, d, p)
	require.NoError(t, err)
	require.Equal(t, "booting", got["state"])
	require.NotContains(t, got, "warnings")
	require.Equal(t, "elicitation (client desk 2, principal ann)", d.approvedBy)
	require.Len(t, p.asked, 1)
	require.Equal(t, tools.Question{
		About: leaseID, Asks: "ann", Yes: "Launch it, for at most $1.29",
		Text: "Launch this GPU machine? It costs money.\nmachine: gpu_1x_a10 in any region that the policy allows, $1.29/h\n" +
			"time: 60 min once it is ready; worst case: $1.29\nasked for by: ann; purpose: \"one\\nrequest: two\"\n" +
			"request: abcdefghijkl, until 2026-11-23T13:00:00Z; gpulease approve abcdefghijkl does the same",
	}, p.asked[0])
}

// Whatever comes but a yes to what still waits leaves the request as it is, and says how
// a person approves.
func TestWhatIsNoYesLeavesTheRequestWaiting(t *testing.T) {
	for name, tc := range map[string]struct {
		says func(*desk) func(context.Context, tools.Question) (tools.Reply, error)
		want string
	}{
		"declined": {func(*desk) func(context.Context, tools.Question) (tools.Reply, error) {
			return func(context.Context, tools.Question) (tools.Reply, error) { return tools.Reply{Why: "declined"}, nil }
		}, "declined"},
		"refused by the ledger": {func(d *desk) func(context.Context, tools.Question) (tools.Reply, error) {
			d.approve = func(lease.Lease, string) (lease.Lease, error) { return lease.Lease{}, errors.New("disk full") }
			return yes
		}, "the yes came to nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			d := waitingDesk()
			got, err := launchAsking(t, d, &phone{says: tc.says(d)})
			require.NoError(t, err)
			require.Equal(t, "awaiting_approval", got["state"])
			require.Zero(t, d.row.ApprovedAt)
			require.Len(t, got["warnings"], 1)
			require.Contains(t, got["warnings"].([]any)[0], "has not approved it here: "+tc.want)
			require.Contains(t, got["next"], "ask a person to run, by 2026-11-23T13:00:00Z: gpulease approve abcdefghijkl")
		})
	}
}

// A person who decides by another way meanwhile ends the wait, and the answer after that
// changes nothing.
func TestSomebodyDecidesByAnotherWay(t *testing.T) {
	denied := lease.Lease{ID: leaseID, State: lease.Ended, Reason: lease.Denied, Type: "gpu_1x_a10"}
	approved := waiting()
	approved.ApprovedAt, approved.ApprovedBy = noon, "bob@host"
	for name, row := range map[string]lease.Lease{"denied": denied, "approved": approved} {
		t.Run(name, func(t *testing.T) {
			d := waitingDesk()
			d.then = []lease.Lease{row}
			got, err := launchAsking(t, d, &phone{says: func(ctx context.Context, _ tools.Question) (tools.Reply, error) {
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Second):
					t.Error("the question is not taken back")
				}
				return tools.Reply{Why: "no answer came in time"}, nil
			}})
			require.NoError(t, err)
			require.Equal(t, string(row.State), got["state"])
			require.NotContains(t, got, "warnings", "it was decided")
			require.Empty(t, d.approvedBy)
		})
	}
}

// The answer to what ended while the person thought is told as such.
func TestAYesToWhatHasEndedIsNone(t *testing.T) {
	d := waitingDesk()
	ended := lease.Lease{ID: leaseID, State: lease.Ended, Reason: lease.Expired, Type: "gpu_1x_a10"}
	d.approve = func(lease.Lease, string) (lease.Lease, error) {
		d.row = ended
		return ended, &lease.Error{Code: lease.CodeInvalidInput, Message: "lease abcdefghijkl does not wait for approval: it is ended"}
	}
	got, err := launchAsking(t, d, &phone{says: yes})
	require.NoError(t, err)
	require.Equal(t, "ended", got["state"])
	require.Equal(t, []any{"the person behind this client has not approved it here: the yes came to nothing: lease abcdefghijkl does not wait for approval: it is ended"}, got["warnings"])
}

func TestACancelledCallApprovesNothing(t *testing.T) {
	d := waitingDesk()
	ctx, cancel := context.WithCancel(t.Context())
	p := &phone{says: func(context.Context, tools.Question) (tools.Reply, error) {
		cancel()
		return tools.Reply{Yes: true, By: "desk"}, nil
	}}
	_, err := useIn(tools.WithAsker(ctx, p), t, tools.Deps{Leases: d}, "launch_lease", `{"type":"gpu_1x_a10"}`)
	require.NoError(t, err)
	require.Len(t, p.asked, 1)
	require.Empty(t, d.approvedBy)
	require.Zero(t, d.row.ApprovedAt)
}

// A call that brings an answer launches nothing of its own.
func TestAnAnswerIsAboutWhatWasAsked(t *testing.T) {
	d := waitingDesk()
	d.launch = nil // would panic
	got, err := launchAsking(t, d, &phone{about: leaseID, says: yes})
	require.NoError(t, err)
	require.Equal(t, "booting", got["state"])

	_, err = launchAsking(t, d, &phone{about: "zzzzzzzzzzzz", says: yes})
	require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err), "another principal's, or gone")
}

func TestAQuestionEndsTheCallUnchanged(t *testing.T) {
	first := errors.New("ask first")
	_, err := launchAsking(t, waitingDesk(), &phone{says: func(context.Context, tools.Question) (tools.Reply, error) { return tools.Reply{}, first }})
	require.ErrorIs(t, err, first)
}

func TestNobodyIsAskedAboutWhatDoesNotWait(t *testing.T) {
	d := waitingDesk()
	d.launch = func(context.Context, lease.LaunchRequest) (lease.Lease, error) {
		return lease.Lease{ID: leaseID, State: lease.Booting, Type: "gpu_1x_a10"}, nil
	}
	p := &phone{says: yes}
	got, err := launchAsking(t, d, p)
	require.NoError(t, err)
	require.Equal(t, "booting", got["state"])
	require.Empty(t, p.asked)
}
