package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/gpulease/gpulease/lease"
)

// adopt writes leases for instances of ours that the ledger does not know: those
// of the ledgers named. Where none is named it only does so when it is plain that all
// local state was lost, and whose it was.
func (s *settings) adopt(ctx context.Context, a *app, from []string, r *reaping) []error {
	found, err := a.manager.Adoptable(ctx)
	if err != nil {
		return []error{fmt.Errorf("look for what could be adopted: %w", err)}
	}
	own, err := a.store.LedgerID(ctx)
	if err != nil {
		return []error{err}
	}
	r.Adoptable = found
	var problems []error
	if len(from) == 0 {
		if from, err = a.lostLedgers(ctx, found, own); err != nil {
			problems = append(problems, err)
		}
	}
	if len(from) == 0 {
		return problems
	}
	if r.Adopted, err = a.manager.Adopt(ctx, from...); err != nil {
		problems = append(problems, fmt.Errorf("adopt: %w", err))
	}
	for _, id := range from {
		delete(r.Adoptable, id)
	}
	if len(r.Adopted) > 0 {
		if _, err := s.ensureKeeper(ctx, a); err != nil {
			problems = append(problems, fmt.Errorf("what was adopted has no keeper that ends it: %w", err))
		}
	}
	return problems
}

// lostLedgers are the ledgers to adopt from where none was named.
func (a *app) lostLedgers(ctx context.Context, found map[string][]lease.Reaped, own string) ([]string, error) {
	ids := slices.Sorted(maps.Keys(found))
	foreign := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == own })
	if len(foreign) == 0 {
		return ids, nil
	}
	old, err := a.store.List(ctx, 1)
	if err != nil {
		return nil, err
	}
	if len(foreign) == 1 && len(old) == 0 {
		return ids, nil
	}
	cause := "this ledger has had leases, so the others may be in use elsewhere"
	if len(old) == 0 {
		cause = "there is more than one ledger to adopt from"
	}
	return nil, errors.New(cause + ": name what was lost, with --from-ledger " + strings.Join(foreign, " or --from-ledger "))
}

// hintAtLost says where an empty ledger is not all that there is: its state
// may have been lost while machines ran. Without a key, or an answer soon, it says nothing.
func (a *app) hintAtLost(ctx context.Context, w io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, keyCheck)
	defer cancel()
	found, err := a.manager.Adoptable(ctx)
	if err != nil {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		machines, them := fmt.Sprintf("%d machines of gpulease run", len(found[id])), "them"
		if len(found[id]) == 1 {
			machines, them = "1 machine of gpulease runs", "it"
		}
		fmt.Fprintf(w, "gpulease: %s in this account that this ledger does not know: ledger %s has launched %s. If that was lost, gpulease reap --adopt takes %s over.\n", machines, id, them, them)
	}
}
