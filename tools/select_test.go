package tools_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/tools"
)

func namesOf(all []tools.Tool) (names []string) {
	for _, t := range all {
		names = append(names, t.Name)
	}
	return names
}

func TestToolsAreChosenByGroupNameAndEffect(t *testing.T) {
	for _, tc := range []struct {
		choice tools.Selection
		want   []string
	}{
		{tools.Selection{Toolsets: []string{"spend", "run"}}, []string{"run_command", "read_output", "cancel_job", "spend_report"}},
		{tools.Selection{Tools: []string{"spend_report", "get_lease"}}, []string{"get_lease", "spend_report"}},
		{tools.Selection{Toolsets: []string{"run"}, Tools: []string{"get_lease"}}, []string{"run_command", "get_lease", "read_output", "cancel_job"}},
		{tools.Selection{Toolsets: []string{"run"}, Exclude: []string{"cancel_job"}}, []string{"run_command", "read_output"}},
		{tools.Selection{Toolsets: []string{"run"}, ReadOnly: true}, []string{"read_output"}},
	} {
		got, err := tc.choice.Of(tools.All(tools.Deps{}))
		require.NoError(t, err)
		require.Equal(t, tc.want, namesOf(got), "%+v", tc.choice)
	}
	got, err := tools.Selection{ReadOnly: true}.Of(tools.All(tools.Deps{}))
	require.NoError(t, err)
	for _, tool := range got {
		require.True(t, tool.Annotations.ReadOnly, tool.Name)
	}

	for _, tc := range []struct {
		choice tools.Selection
		want   string
	}{
		{tools.Selection{Toolsets: []string{"leases"}}, `there is no toolset "leases"; did you mean "lease"?`},
		{tools.Selection{Tools: []string{"stop_leas"}}, `there is no tool "stop_leas"; did you mean "stop_lease"?`},
		{tools.Selection{Exclude: []string{"stop"}}, `there is no tool "stop"; did you mean "stop_lease"?`},
		{tools.Selection{Tools: []string{"stop_lease"}, ReadOnly: true}, "no tool is left of list_capacity, "},
	} {
		_, err := tc.choice.Of(tools.All(tools.Deps{}))
		require.ErrorContains(t, err, tc.want)
	}
}

func TestEveryToolIsInAToolset(t *testing.T) {
	all := tools.All(tools.Deps{})
	got, err := tools.Selection{Toolsets: tools.Toolsets()}.Of(all)
	require.NoError(t, err)
	require.Equal(t, namesOf(all), namesOf(got))
}

func TestNothingReachesTheServersDiskFromElsewhereWithoutARoot(t *testing.T) {
	all := tools.All(tools.Deps{Remote: true})
	require.NotContains(t, namesOf(all), "sync_files")
	for _, tool := range all {
		require.NotContains(t, string(tool.InputSchema), `"results"`, tool.Name)
		if tool.Name == "launch_lease" || tool.Name == "stop_lease" {
			_, err := tool.Call(t.Context(), []byte(`{"type":"x","lease_id":"aaaaaaaaaaaa","results":["out"]}`))
			require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err))
			require.ErrorContains(t, err, `there is no argument "results"`)
		}
	}
	all = tools.All(tools.Deps{Remote: true, Roots: []string{t.TempDir()}})
	require.Contains(t, namesOf(all), "sync_files")
}
