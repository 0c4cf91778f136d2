package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// print says what a visit has found and done, for people.
func (r reaping) print(w io.Writer) error {
	var b strings.Builder
	for _, l := range r.Adopted {
		fmt.Fprintf(&b, "adopted %s: %s in %s at %s/h, ends at %s; nothing can be run on it, only gpulease stop %s\n",
			l.ID, printable(l.Type), printable(l.Region), l.Price, local(l.Deadline), l.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(r.Adoptable)) {
		for _, x := range r.Adoptable[id] {
			fmt.Fprintf(&b, "not adopted, of ledger %s: %s\n", id, machineLine(x))
		}
	}
	for _, l := range r.Due {
		fmt.Fprintf(&b, "%s: STOP NOT CONFIRMED, %s/h are still being spent (%s)\n", l.ID, l.Price, printable(unprefixed(l.Detail)))
	}
	for _, x := range r.Ended {
		fmt.Fprintf(&b, "ended: %s\n", machineLine(x))
	}
	for _, x := range r.Unconfirmed {
		fmt.Fprintf(&b, "STOP NOT CONFIRMED, %s/h are still being spent: %s: %s\n", x.Price, machineLine(x), printable(x.Err.Error()))
	}
	for _, x := range r.Alive {
		fmt.Fprintf(&b, "within its time: %s\n", machineLine(x))
	}
	fmt.Fprintf(&b, "%d ended, %d not confirmed, %d of ours within their time, %d not ours and not touched\n",
		len(r.Ended), len(r.Unconfirmed)+len(r.Due), len(r.Alive), r.Others)
	_, err := io.WriteString(w, b.String())
	return err
}

func machineLine(x lease.Reaped) string {
	return fmt.Sprintf("instance %s (%s in %s, lease %s of ledger %s, hard stop %s)",
		printable(x.Instance), printable(x.Type), printable(x.Region), x.Name.Lease, x.Name.Ledger, local(x.Name.HardStop))
}

// reapedRow is an instance of ours as JSON.
type reapedRow struct {
	Instance string       `json:"instance_id"`
	ID       lease.ID     `json:"lease_id"`
	Ledger   string       `json:"ledger"`
	Type     string       `json:"instance_type"`
	Region   string       `json:"region"`
	Price    policy.Money `json:"price_usd_per_hour"`
	HardStop time.Time    `json:"hard_stop"`
	Error    string       `json:"error,omitempty"`
}

func reapedRows(all []lease.Reaped) []reapedRow {
	out := []reapedRow{}
	for _, x := range all {
		row := reapedRow{Instance: x.Instance, ID: x.Name.Lease, Ledger: x.Name.Ledger, Type: x.Type, Region: x.Region, Price: x.Price, HardStop: x.Name.HardStop}
		if x.Err != nil {
			row.Error = x.Err.Error()
		}
		out = append(out, row)
	}
	return out
}

func (r reaping) printJSON(w io.Writer) error {
	out := struct {
		At          time.Time              `json:"at"`
		Ended       []reapedRow            `json:"ended"`
		Unconfirmed []reapedRow            `json:"unconfirmed"`
		Alive       []reapedRow            `json:"alive"`
		Others      int                    `json:"others"`
		Due         []leaseRow             `json:"leases_unconfirmed"`
		Adopted     []leaseRow             `json:"adopted"`
		Adoptable   map[string][]reapedRow `json:"adoptable,omitempty"`
		Problems    []string               `json:"problems,omitempty"`
	}{
		At: r.At, Ended: reapedRows(r.Ended), Unconfirmed: reapedRows(r.Unconfirmed), Alive: reapedRows(r.Alive), Others: r.Others,
		Due: []leaseRow{}, Adopted: []leaseRow{}, Adoptable: map[string][]reapedRow{},
	}
	for _, l := range r.Due {
		out.Due = append(out.Due, rowOf(l, r.At))
	}
	for _, l := range r.Adopted {
		out.Adopted = append(out.Adopted, rowOf(l, r.At))
	}
	for id, all := range r.Adoptable {
		out.Adoptable[id] = reapedRows(all)
	}
	for _, err := range r.Problems {
		out.Problems = append(out.Problems, err.Error())
	}
	return json.NewEncoder(w).Encode(out)
}
