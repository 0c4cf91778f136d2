package lease_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	testName = regexp.MustCompile("`(Test\\w+)`")
)

// The page of incidents names tests that exist, has a row for each incident, and leaves none
// of their tests out.
func TestIncidentsHaveTheirTests(t *testing.T) {
	t.Parallel()
	exists := map[string]bool{}
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
			exists[m[1]] = true
		}
		return err
	}))
	page, err := os.ReadFile("../docs/incidents.md")
	require.NoError(t, err)
	rows, named := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || strings.Trim(cells[1], " -#") == "" {
			continue
		}
		row := strings.TrimSpace(cells[1])
		require.False(t, rows[row], "row %s is there twice", row)
		rows[row] = true
		tests := testName.FindAllStringSubmatch(cells[4], -1)
		require.NotEmpty(t, tests, "row %s names no test", row)
		for _, m := range tests {
			require.True(t, exists[m[1]], "row %s names %s, and there is no such test", row, m[1])
			named[m[1]] = true
		}
	}
	for n := range 23 {
		require.True(t, rows[fmt.Sprint(n+1)], "incident %d has no row", n+1)
	}
	for _, letter := range "abcdefg" {
		require.True(t, rows[string(letter)], "incident %c has no row", letter)
	}
	for name := range exists {
		if strings.HasPrefix(name, "TestIncident") && name != "TestIncidentsHaveTheirTests" {
			require.True(t, named[name], "%s is on no row", name)
		}
	}
}
