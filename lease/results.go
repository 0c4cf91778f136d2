package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ManifestName is the file beside what has come home that lists all of it with
// hashes, and what did not come and why.
const ManifestName = "gpulease-manifest.json"

// LeaseInPath stands for the lease's id in [LaunchRequest.ResultsDir]: who asks
// for a launch does not know it yet.
const LeaseInPath = "<lease>"

// SetResults adds paths on the machine to those that are brought home before its
// end, into dir unless the lease has a directory for them already. Paths that it
// has change nothing. It fails once the end has been decided.
func (m *Manager) SetResults(ctx context.Context, id ID, paths []string, dir string) (Lease, error) {
	if err := checkResults(paths, dir); err != nil {
		return Lease{}, err
	}
	for {
		l, err := m.get(ctx, id)
		if err != nil {
			return Lease{}, err
		}
		all := l.resultPaths()
		for _, p := range paths {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
		switch added := len(all) - len(l.resultPaths()); {
		case added == 0:
			return l, nil
		case l.State == Stopping || l.State == Ended:
			return l, &Error{
				Code: CodeLeaseEnded, Message: fmt.Sprintf("lease %s is %s (%s): no more results can be named", l.ID, l.State, l.Reason), Why: l.Detail, LeaseID: l.ID,
				Next: "name results before the end, at the launch or with the first stop_lease",
			}
		case l.ResultsDir == "" && l.Home != m.Home && l.Home != "":
			return l, &Error{
				Code: CodePathDenied, Message: fmt.Sprintf("lease %s was launched from another computer or state directory, which alone can bring its files home", l.ID), LeaseID: l.ID,
				Next: "name results where it was launched, or call again without them",
			}
		case len(all) > maxResults:
			return l, invalid("name directories instead of files", "%d results are named, at most %d are kept", len(all), maxResults)
		}
		l.Results = strings.Join(all, "\n")
		if l.ResultsDir == "" {
			l.ResultsDir = dir
		}
		m.Crash("naming-results")
		named, err := m.Store.Update(ctx, l, fmt.Sprintf("%d results are to be brought home", len(all)))
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return l, ledgerError("write down which results are wanted", err)
		}
		m.Crash("results-named")
		return named, nil
	}
}

// resultPaths are the paths to bring home, nil for none.
func (l Lease) resultPaths() []string {
	if l.Results == "" {
		return nil
	}
	return strings.Split(l.Results, "\n")
}
