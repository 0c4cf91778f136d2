package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
)

// found are the instances of the account, by whose they are.
type found struct {
	lost      []string // ours, and no live lease here or anywhere can end them in time
	elsewhere []string // ours by signature, of another ledger and within their time
	unknown   []string // ours by signature, while our ledger cannot be read
	others    []string // not ours
	rate      policy.Money
	live      int
}

// leftovers looks for what costs money, or lies about, although no lease needs it.
func (x *examination) leftovers(ctx context.Context) {
	own := ""
	if x.ledger != nil {
		own, _ = x.ledger.LedgerID(ctx) // it was read before
	}
	f := found{}
	for _, i := range x.account.instances {
		if i.Status == lambda.StatusTerminated || i.Status == lambda.StatusTerminating || i.Status == lambda.StatusPreempted {
			continue
		}
		x.sort(ctx, own, i, &f)
	}
	if len(f.lost) > 0 {
		x.fail("leftovers", State, "terminate them in the console (https://cloud.lambda.ai): no live lease of this ledger can", "machines of ours that nobody ends: %s", names(f.lost))
	}
	if len(f.unknown) > 0 {
		x.warn("leftovers", State, "mend the ledger", "machines of ours, and without the ledger it cannot be told whether leases of it need them: %s", names(f.unknown))
	}
	if len(f.others) > 0 {
		x.warn("untracked", Billing, "if they are not needed, end them in the console (https://cloud.lambda.ai)",
			"%s that no gpulease with this key has launched, %s/h in all: %s", count(len(f.others), "machine"), f.rate, names(f.others))
	}
	if len(f.lost)+len(f.unknown) == 0 {
		text := fmt.Sprintf("no machine of ours is left over; %s of live leases here", count(f.live, "machine"))
		if len(f.elsewhere) > 0 {
			text += "; of other ledgers and within their time: " + names(f.elsewhere) +
				". If their ledger is lost, gpulease reap --adopt takes them into this one"
		}
		x.ok("leftovers", State, "%s", text)
	}
	x.leftKeys(own)
}

// sort decides whose an instance is. Its name may have been edited, so the tag
// counts as well.
func (x *examination) sort(ctx context.Context, own string, i lambda.Instance, f *found) {
	label := fmt.Sprintf("%s %s in %s", i.ID, i.InstanceType.Name, i.Region.Name)
	n, ours := x.signed(ctx, i)
	if !ours {
		f.rate += policy.Cents(int64(i.InstanceType.PriceCentsPerHour))
		if i.Name != "" {
			label += fmt.Sprintf(" %q", i.Name)
		}
		if slices.ContainsFunc(i.SSHKeyNames, func(k string) bool { _, _, ok := parseKeyName(k); return ok }) {
			label += " (with a key that is named as a lease's)"
		}
		f.others = append(f.others, label)
		return
	}
	label += fmt.Sprintf(" (lease %s of ledger %s, hard stop %s)", n.Lease, n.Ledger, clockTime(n.HardStop))
	_, isLive := x.live[n.Lease]
	switch {
	case n.Ledger == own && isLive:
		f.live++
	case n.Ledger == own && !x.ended[n.Lease].EndedAt.Before(x.began):
		// It ended since the account was read.
	case n.Ledger == own, x.now().After(n.HardStop):
		f.lost = append(f.lost, label)
	case x.ledger == nil && !x.noFile:
		f.unknown = append(f.unknown, label)
	default:
		f.elsewhere = append(f.elsewhere, label)
	}
}

func (x *examination) signed(ctx context.Context, i lambda.Instance) (lease.Name, bool) {
	candidates := []string{i.Name}
	for _, t := range i.Tags {
		candidates = append(candidates, t.Value)
	}
	for _, c := range candidates {
		if n, ok, err := lease.ParseName(ctx, signer{x.Cloud}, c); err == nil && ok {
			return n, true
		}
	}
	return lease.Name{}, false
}

// parseKeyName reads the name of a lease's SSH key. It is not signed.
func parseKeyName(name string) (ledger string, id lease.ID, ok bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 || parts[0] != "gl" || parts[1] == "" || !lease.ValidID(parts[2]) {
		return "", "", false
	}
	return parts[1], lease.ID(parts[2]), true
}

// leftKeys looks for SSH keys of leases that have ended.
func (x *examination) leftKeys(own string) {
	if x.account.keys.err != nil {
		return // said by the line limits
	}
	var here, elsewhere []string
	for _, k := range x.account.keys.got {
		ledger, id, ok := parseKeyName(k.Name)
		old, hasEnded := x.ended[id]
		switch {
		case !ok:
		case ledger == own:
			// One that the ledger's copy does not know is being launched now.
			if hasEnded && x.now().Sub(old.EndedAt) > young {
				here = append(here, k.Name)
			}
		case !slices.ContainsFunc(x.account.instances, func(i lambda.Instance) bool { return slices.Contains(i.SSHKeyNames, k.Name) }):
			elsewhere = append(elsewhere, k.Name)
		}
	}
	if len(here) > 0 {
		x.warn("ssh keys", State, "start a server (gpulease serve): it removes them", "keys of ended leases are still in the account: %s", names(here))
	}
	if len(elsewhere) > 0 {
		x.warn("ssh keys", State, "if nothing of theirs is being launched, delete them in the console", "keys of other ledgers' leases that have no machine: %s", names(elsewhere))
	}
	if len(here)+len(elsewhere) == 0 {
		x.ok("ssh keys", State, "no key of an ended lease is left in the account")
	}
}

// young is how old something has to be before it is called left over: what
// happens at this moment is not.
const young = time.Minute

// keyFiles are the private keys here, but for the young ones.
func (x *examination) keyFiles() []string {
	files, err := filepath.Glob(filepath.Join(x.StateDir, "keys", "*.key"))
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(files, func(f string) bool {
		info, err := os.Stat(f)
		return err != nil || x.Now().Sub(info.ModTime()) < young
	})
}

// leftKeyFiles looks for private keys here of leases that have ended.
func (x *examination) leftKeyFiles(files []string) {
	if x.ledger == nil && !x.noFile {
		return
	}
	var left, quoted []string
	for _, f := range files {
		id := lease.ID(strings.TrimSuffix(filepath.Base(f), ".key"))
		if _, isLive := x.live[id]; !isLive && lease.ValidID(string(id)) {
			left, quoted = append(left, f), append(quoted, Quote(f))
		}
	}
	if len(left) > 0 {
		x.warn("key files", State, "rm "+strings.Join(quoted, " "), "private keys of leases that are not live lie here: %s", names(left))
	}
}
