package main

import (
	"slices"
	"strings"

	"github.com/gpulease/gpulease/tools"
)

// instructions go to the model with every request; every word is paid for. They
// speak of the tools that there are.
func instructions(all []tools.Tool) string {
	has := func(name string) bool {
		return slices.ContainsFunc(all, func(t tools.Tool) bool { return t.Name == name })
	}
	var steps []string
	for _, step := range []struct{ tool, text string }{
		{"list_capacity", "list_capacity (free)"},
		{"launch_lease", "launch_lease (costs money; dry_run: true only quotes)"},
		{"get_lease", `get_lease with wait_seconds until state is "ready"`},
		{"sync_files", "sync_files"},
		{"run_command", "run_command"},
		{"stop_lease", "stop_lease"},
	} {
		if has(step.tool) {
			steps = append(steps, step.text)
		}
	}
	order := strings.Replace(strings.Join(steps, " -> "), "sync_files -> run_command", "sync_files, run_command", 1)
	lines := []string{"gpulease leases GPU machines on Lambda Cloud. A lease costs money from boot until its stop is confirmed."}
	switch {
	case !has("launch_lease"):
		lines = append(lines, "This server launches nothing: "+order+".")
	case has("stop_lease") && has("sync_files"):
		kept := "what results name"
		if has("fetch_files") {
			kept += " or fetch_files has brought"
		}
		lines = append(lines, "Order: "+order+". Always stop_lease when done: nothing on the machine is kept but "+kept+".")
	case has("stop_lease"):
		lines = append(lines, "Order: "+order+". Always stop_lease when done: nothing on the machine is kept.")
	default:
		lines = append(lines, "Order: "+order+".")
	}
	if has("run_command") && !has("sync_files") {
		lines = append(lines, `No tool here reads this computer's files: send a small file as stdin of run_command ("mkdir -p src && cat >src/a.py"), and read one with cat.`)
	}
	if has("run_command") && has("read_output") {
		lines = append(lines, "run_command returns within wait_seconds; a longer job goes on by itself, follow it with read_output.")
	}
	lines = append(lines, `Every answer has state, cost_usd, deadline, budget_left_usd, warnings and next. Errors start with "error CODE:" and say what to call next. A failing test suite is a result (exit_code), not an error.`)
	return strings.Join(lines, "\n")
}
