package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

func printLeases(w io.Writer, leases []lease.Lease) error {
	if len(leases) == 0 {
		_, err := fmt.Fprintln(w, "no leases")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "LEASE\tSTATE\tREASON\tTYPE\tREGION\tRATE\tCOST\tRESERVED\tDEADLINE\tPURPOSE")
	now := time.Now()
	for _, l := range leases {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s/h\t%s\t%s\t%s\t%s\n", l.ID, l.State, l.Reason, l.Type, l.Region, l.Price, l.CostAt(now), l.Reserved,
			deadline(l), printable(l.Purpose))
	}
	return t.Flush()
}

func deadline(l lease.Lease) string {
	if l.Deadline.IsZero() {
		return "-"
	}
	return local(l.Deadline)
}

// printNotices says below the table what has to be known beside it.
func (a *app) printNotices(ctx context.Context, w io.Writer, leases []lease.Lease) error {
	var lines []string
	var live *lease.Lease
	for i, l := range leases {
		if l.State == lease.AwaitingApproval {
			lines = append(lines, waitsLine(l))
		}
		if l.State.Live() && (live == nil || !live.Counts()) {
			live = &leases[i]
		}
	}
	for _, n := range a.manager.Notices(ctx) {
		lines = append(lines, printable(n))
	}
	if live != nil {
		switch guard := a.manager.Status(ctx, *live).Guard; {
		case guard == "": // only what waits for a person, which has no deadline yet
		case guard != "none":
			lines = append(lines, "guarded by "+printable(guard))
		case live.Counts():
			lines = append(lines, "NOBODY enforces the deadlines now: gpulease keeper does, and so does a server")
		}
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
	return err
}

// waitsLine says what a person has to decide, and how.
func waitsLine(l lease.Lease) string {
	if !l.ApprovedAt.IsZero() {
		return fmt.Sprintf("%s was approved by %s: %s", l.ID, printable(l.ApprovedBy), printable(l.Detail))
	}
	return fmt.Sprintf("%s waits for approval until %s: %s for %s, %s at most: gpulease approve %s", l.ID, local(l.DecideBy), printable(l.Type), span(l.TTL), l.WorstCase(), l.ID)
}

// leaseRow is a lease as JSON.
type leaseRow struct {
	ID        lease.ID      `json:"lease_id"`
	State     lease.State   `json:"state"`
	Reason    lease.Reason  `json:"reason,omitempty"`
	Detail    string        `json:"detail"`
	Principal string        `json:"principal"`
	Type      string        `json:"instance_type"`
	Region    string        `json:"region"`
	Instance  string        `json:"instance_id,omitempty"`
	Rate      policy.Money  `json:"price_usd_per_hour"`
	Cost      policy.Money  `json:"cost_usd"`
	Reserved  policy.Money  `json:"reserved_usd"`
	WorstCase *policy.Money `json:"worst_case_usd,omitempty"` // of what waits for approval
	DecideBy  time.Time     `json:"decide_by,omitzero"`
	Approved  string        `json:"approved_by,omitempty"`
	Deadline  time.Time     `json:"deadline"`
	HardStop  time.Time     `json:"hard_stop,omitzero"`
	Created   time.Time     `json:"created_at"`
	Ready     time.Time     `json:"ready_at,omitzero"`
	Ended     time.Time     `json:"ended_at,omitzero"`
	Rescue    string        `json:"rescue,omitempty"`
	Purpose   string        `json:"purpose,omitempty"`
}

func rowOf(l lease.Lease, now time.Time) leaseRow {
	r := leaseRow{
		ID: l.ID, State: l.State, Reason: l.Reason, Detail: l.Detail, Principal: l.Principal, Type: l.Type, Region: l.Region, Instance: l.InstanceID,
		Rate: l.Price, Cost: l.CostAt(now), Reserved: l.Reserved, Approved: l.ApprovedBy, Deadline: l.Deadline, HardStop: l.HardStop,
		Created: l.CreatedAt, Ready: l.ReadyAt, Ended: l.EndedAt, Rescue: l.Rescue, Purpose: l.Purpose,
	}
	if l.State == lease.AwaitingApproval {
		worst := l.WorstCase()
		r.WorstCase, r.DecideBy = &worst, l.DecideBy
	}
	return r
}

func printLeasesJSON(w io.Writer, leases []lease.Lease) error {
	e := json.NewEncoder(w)
	now := time.Now()
	for _, l := range leases {
		if err := e.Encode(rowOf(l, now)); err != nil {
			return fmt.Errorf("print lease %s: %w", l.ID, err)
		}
	}
	return nil
}
