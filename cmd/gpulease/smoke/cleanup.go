package smoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
)

// cleanUp ends everything that the run has begun and proves that nothing is left,
// here or in the account. The run's directory is removed only then.
func (r *run) cleanUp(ctx context.Context) error {
	r.step("clean-up")
	if err := r.server.Close(); err != nil {
		r.say("clean-up", "%v", err) // the stop below needs no server
	}
	r.server = nil
	if err := r.stopAll(ctx); err != nil {
		return err
	}
	if err := r.residue(ctx); err != nil {
		return err
	}
	if err := agent.KeeperEnds(ctx, r.stateDir()); err != nil {
		return err
	}
	r.say("clean-up", "nothing is left: no machine, no SSH key, no process")
	return os.RemoveAll(r.dir)
}

// stopAll runs "gpulease stop --all" beyond the reach of the terminal's signals:
// who loses patience must not interrupt what saves money.
func (r *run) stopAll(ctx context.Context) error {
	const more = 2 * time.Minute // for a launch under way, and to end in order
	ctx, cancel := context.WithTimeout(ctx, r.CleanTime+more)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Binary, "stop", "--all", "--wait", r.CleanTime.String())
	cmd.Env = r.env()
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout = &out
	log, err := os.OpenFile(filepath.Join(r.dir, "stop.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("stop --all: %w", err)
	}
	defer log.Close()
	cmd.Stderr = log
	r.Detach(cmd)
	err = cmd.Run()
	for line := range strings.Lines(out.String()) {
		r.say("clean-up", "stop: %s", strings.TrimSpace(line))
	}
	if err != nil {
		return fmt.Errorf("stop --all: %w", err)
	}
	return nil
}

// residue looks into the ledger and then into the account.
func (r *run) residue(ctx context.Context) error {
	c, err := doctor.CopyLedger(ctx, r.ledger())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no process got as far as making one, so nothing was launched
	}
	if err != nil {
		return fmt.Errorf("read the run's ledger: %w", err)
	}
	id, err := c.LedgerID(ctx)
	leases, listErr := c.List(ctx, 0)
	if err := errors.Join(err, listErr, c.Close()); err != nil {
		return fmt.Errorf("read the run's ledger: %w", err)
	}
	for _, l := range leases {
		if l.State != lease.Ended {
			return fmt.Errorf("lease %s is %s: %s", l.ID, l.State, l.Detail)
		}
		r.cost += l.Cost
	}
	return r.searchAccount(ctx, "gl-"+id+"-")
}

// Listings may lag behind a little.
const (
	searchTime  = time.Minute
	searchPause = 3 * time.Second
)

// searchAccount fails if a machine or an SSH key with our prefix is in the
// account and does not go away soon.
func (r *run) searchAccount(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	tick := time.NewTicker(searchPause)
	defer tick.Stop()
	for {
		left, err := r.named(ctx, prefix)
		if err == nil && len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if len(left) == 0 {
				return fmt.Errorf("search the account: %w", err)
			}
			return fmt.Errorf("still in the account: %s", strings.Join(left, ", "))
		case <-tick.C:
		}
	}
}

func (r *run) named(ctx context.Context, prefix string) (left []string, err error) {
	instances, err := r.Cloud.Instances(ctx)
	if err != nil {
		return nil, err
	}
	ours := func(name string) bool { return strings.HasPrefix(name, prefix) }
	for _, i := range instances {
		mine := ours(i.Name)
		for _, k := range i.SSHKeyNames {
			mine = mine || ours(k)
		}
		for _, t := range i.Tags {
			mine = mine || ours(t.Value)
		}
		if mine && i.Status != lambda.StatusTerminated {
			left = append(left, fmt.Sprintf("machine %s (%s)", i.ID, i.Status))
		}
	}
	keys, err := r.Cloud.SSHKeys(ctx)
	if err != nil {
		return left, err
	}
	for _, k := range keys {
		if ours(k.Name) {
			left = append(left, "SSH key "+k.Name)
		}
	}
	return left, nil
}

// checkCost holds what the run has cost to what was said beforehand.
func (r *run) checkCost() error {
	if r.cost > r.Limit {
		return fmt.Errorf("the check cost %s, above the limit of %s", r.cost, r.Limit)
	}
	if r.cost > r.worst {
		return fmt.Errorf("the check cost %s, above the worst case of %s", r.cost, r.worst)
	}
	return nil
}
