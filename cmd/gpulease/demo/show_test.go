package demo

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLongOutputIsCut(t *testing.T) {
	t.Parallel()
	shown := func(lines int, end string) []string {
		var b strings.Builder
		c := &cutter{show: newShow(Options{}, &b)}
		var in strings.Builder
		for i := range lines {
			fmt.Fprintf(&in, "line %d\n", i)
		}
		in.WriteString(end)
		text := in.String()
		for len(text) > 0 { // in pieces that are not lines
			n := min(7, len(text))
			c.write(text[:n])
			text = text[n:]
		}
		c.end()
		return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	}
	whole := shown(firstLines+lastLines-1, "no newline")
	require.Len(t, whole, firstLines+lastLines)
	require.Equal(t, "   | no newline", whole[len(whole)-1])

	long := shown(1000, "")
	require.Len(t, long, firstLines+1+lastLines)
	require.Equal(t, "   | line 0", long[0])
	require.Equal(t, "   | ... 940 lines are left out ...", long[firstLines])
	require.Equal(t, "   | line 999", long[len(long)-1])
}
