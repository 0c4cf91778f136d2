package remote

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fishWords splits a line as fish does, which knows \\ and \' between single quotes. It is enough for lines of words.
func fishWords(t *testing.T, line string) []string {
	t.Helper()
	var words []string
	var word strings.Builder
	open, begun := false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\'':
			open, begun = !open, true
		case open && c == '\\' && i+1 < len(line) && (line[i+1] == '\\' || line[i+1] == '\''), !open && c == '\\':
			i++
			word.WriteByte(line[i])
		case open || c != ' ':
			require.True(t, open || !strings.ContainsRune("\"()<>;&|$*?{}#~\n", rune(c)), "%q stands outside of quotes in %q", c, line)
			word.WriteByte(c)
			begun = true
		case begun:
			words = append(words, word.String())
			word.Reset()
			begun = false
		}
	}
	require.False(t, open, line)
	if begun {
		words = append(words, word.String())
	}
	return words
}

// The login shell need not be one of POSIX: what it gets are words in quotes, which must reach sh as they are.
func TestALoginShellWithOtherQuotesChangesNothing(t *testing.T) {
	t.Parallel()
	for _, command := range []string{`echo`, `printf 'a\\nb'`, `a\`, `\'`, `it's`, `'\''\\'`, "two\nlines\\\n", `echo $(touch x); "y" \"`, ``} {
		require.Equal(t, []string{"x", command, "y"}, fishWords(t, "x "+quote(command)+" y"))
		c := Command{Shell: "true " + command}
		r := request{script: jobScript, args: []string{"brief", "job-quoted", "200", "100", "100"}}
		require.NoError(t, c.pack(&r))
		require.True(t, r.plain)
		inline := briefScript.inline(r.args, r.text)
		require.Equal(t, []string{"exec", "sh", "-c", inline}, fishWords(t, "exec sh -c "+quote(inline)))
		require.Contains(t, fishWords(t, jobScript.command([]string{"find", command})), command)
	}
	require.Len(t, fishWords(t, readyCommand), 4)
}
