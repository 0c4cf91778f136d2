package tools_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/tools"
)

func TestATextNamesOnlyWhatIsServed(t *testing.T) {
	all := []string{}
	for _, tool := range tools.All(tools.Deps{}) {
		all = append(all, tool.Name)
	}
	for _, tc := range []struct {
		without []string
		text    string
		want    string
	}{
		{nil, "run_command for more; stop_lease when you are done", "run_command for more; stop_lease when you are done"},
		{[]string{"stop_lease"}, "run_command for more; stop_lease when you are done", "run_command for more; a person ends a lease with gpulease stop"},
		{[]string{"run_command"}, "run_command for more; stop_lease when you are done", "stop_lease when you are done; this server has no run command"},
		{[]string{"sync_files"}, `run_command or sync_files with lease_id "x"; stop_lease when you are done`, "run_command; stop_lease when you are done; this server has no sync files"},
		{[]string{"run_command"}, `run_command or sync_files with lease_id "x"`, `sync_files with lease_id "x"; this server has no run command`},
		{[]string{"launch_lease"}, "list_capacity, then launch_lease for a machine", "list_capacity; this server launches nothing"},
		{[]string{"read_output"}, `do not start it again: read_output with job_id "j" shows what it does`, "do not start it again; this server has no read output"},
		{[]string{"read_output", "cancel_job"}, `read_output with job_id "j" and wait_seconds 40 to follow it, cancel_job to end it`, "this server has no read output; this server has no cancel job"},
		{[]string{"launch_lease", "stop_lease"}, "call stop_lease and launch_lease again", "a person ends a lease with gpulease stop; this server launches nothing"},
		{[]string{"get_lease"}, "ask a person to run, by noon: gpulease approve x (or gpulease deny); get_lease with lease_id \"x\" and wait_seconds 45 waits for it",
			"ask a person to run, by noon: gpulease approve x (or gpulease deny); a person sees a lease with gpulease leases"},
		{[]string{"list_leases"}, "call list_leases to see where things stand before repeating anything that costs money", "a person sees the leases with gpulease leases"},
	} {
		served := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(tc.without, name) })
		require.Equal(t, tc.want, tools.Served(tc.text, served))
	}
	require.Equal(t, "stop_lease", tools.Served("stop_lease", nil), "nobody has chosen")
}
