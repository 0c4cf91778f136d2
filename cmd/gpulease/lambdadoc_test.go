package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/cmd/gpulease/smoke"
)

// docs/lambda.md has every setting with its variable and its default.
func TestThePageOfLambdaHasEverySetting(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/lambda.md")
	require.NoError(t, err)
	page := string(b)
	row := func(flag string) string {
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, "| `") && strings.Contains(line, "| `"+flag+"` |") {
				return line
			}
		}
		t.Errorf("docs/lambda.md has no row for %s", flag)
		return ""
	}
	variable := regexp.MustCompile(`[A-Z]+(_[A-Z]+)+`)
	seen := 0
	newRoot(newSettings(nil), nil, io.Discard, io.Discard).PersistentFlags().VisitAll(func(f *pflag.Flag) {
		seen++
		line := row("--" + f.Name)
		name := variable.FindString(f.Usage)
		require.NotEmpty(t, name, "the help of --%s names its variable", f.Name)
		require.Contains(t, line, "| `"+name+"` |")
		if f.DefValue != "" {
			require.Contains(t, line, "| `"+f.DefValue+"` |", "default of --%s", f.Name)
		}
	})
	require.GreaterOrEqual(t, seen, 9)
	require.Contains(t, page, "| `LAMBDA_API_KEY` |")

	for _, c := range doctor.Classes() {
		require.Contains(t, page, fmt.Sprintf("| `%s` | %d |", c, c.ExitCode()))
	}
	for _, c := range []smoke.Classification{smoke.Passed, smoke.EnvironmentBlocked, smoke.BillingBlocked, smoke.QuotaBlocked, smoke.CapacityBlocked, smoke.ValidationFailed, smoke.CleanUpFailed} {
		require.Contains(t, page, fmt.Sprintf("| `%s` | %d |", c, c.ExitCode()))
	}
	require.Contains(t, page, "`"+doctor.ImageFamily+"`")
}
