package tools

import (
	"fmt"
	"slices"
	"strings"
)

// What reaches the computer on which the server runs, beside the machines: its
// files, its ports. Agents elsewhere do not get these tools for nothing.
const (
	filesSet = "files"
	portsSet = "ports"
)

// toolsets group the tools for who wants fewer of them: each costs tokens with
// every request.
var toolsets = []struct {
	name  string
	tools []string
}{
	{"lease", []string{"list_capacity", "launch_lease", "stop_lease", "get_lease", "list_leases", "extend_lease"}},
	{"run", []string{"run_command", "read_output", "cancel_job"}},
	{filesSet, []string{"sync_files", "fetch_files"}},
	{portsSet, []string{"forward_port"}},
	{"spend", []string{"spend_report"}},
}

// Toolsets are the names of the groups, the important first.
func Toolsets() []string {
	names := make([]string, 0, len(toolsets))
	for _, set := range toolsets {
		names = append(names, set.name)
	}
	return names
}

// inSet reports whether a tool belongs to a group.
func inSet(set, tool string) bool {
	i := slices.Index(Toolsets(), set)
	return slices.Contains(toolsets[i].tools, tool)
}

// Selection is which of the tools a server has. The zero value is all.
type Selection struct {
	Toolsets []string // whole groups of them
	Tools    []string // single ones, beside the groups
	Exclude  []string // never these
	ReadOnly bool     // only those that change nothing
}

// Of gives the chosen tools in the order of all. A name that nothing has is an
// error with the nearest one; so is a choice of nothing.
func (s Selection) Of(all []Tool) ([]Tool, error) {
	var known []string
	for _, t := range all {
		known = append(known, t.Name)
	}
	wanted := slices.Clone(s.Tools)
	for _, name := range s.Toolsets {
		i := slices.Index(Toolsets(), name)
		if i < 0 {
			return nil, unknownName("toolset", name, Toolsets())
		}
		wanted = append(wanted, toolsets[i].tools...)
	}
	for _, name := range append(slices.Clone(s.Tools), s.Exclude...) {
		if !slices.Contains(known, name) {
			return nil, unknownName("tool", name, known)
		}
	}
	var chosen []Tool
	for _, t := range all {
		switch {
		case len(wanted) > 0 && !slices.Contains(wanted, t.Name):
		case slices.Contains(s.Exclude, t.Name):
		case s.ReadOnly && !t.Annotations.ReadOnly:
		default:
			chosen = append(chosen, t)
		}
	}
	names := make([]string, 0, len(chosen))
	for _, t := range chosen {
		names = append(names, t.Name)
	}
	for _, t := range chosen {
		if t.served != nil {
			*t.served = names
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no tool is left of %s", strings.Join(known, ", "))
	}
	return chosen, nil
}

func unknownName(kind, name string, known []string) error {
	if best := Nearest(name, known); best != "" {
		return fmt.Errorf("there is no %s %q; did you mean %q?", kind, name, best)
	}
	return fmt.Errorf("there is no %s %q; there are %s", kind, name, strings.Join(known, ", "))
}
