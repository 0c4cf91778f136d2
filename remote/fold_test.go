package remote

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFold(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"Empty":          {"", ""},
		"Plain":          {"a\nb\n", "a\nb\n"},
		"ProgressBar":    {"start\n\r  0%|     |\r 50%|##   |\r100%|#####|\nend\n", "start\n100%|#####|\nend\n"},
		"NoLineEnd":      {"\r 1%\r 2%\r 3%", " 3%"},
		"WindowsEnds":    {"a\r\nb\r\n", "a\nb\n"},
		"TwoReturns":     {"a\r\r\n", "a\n"},
		"CleanedAtEnd":   {"loading 99%\r             \rdone\n", "done\n"},
		"CleanedAway":    {"loading 99%\r             \r\n", "loading 99%\n"},
		"OnlyReturns":    {"\r\r\r\n", "\n"},
		"Colours":        {"\x1b[1;31merror\x1b[0m: x\n", "error: x\n"},
		"CursorUp":       {"one\n\x1b[Atwo\x1b[K\n", "one\ntwo\n"},
		"Title":          {"\x1b]0;title\x07text\x1b]2;other\x1b\\more\n", "textmore\n"},
		"CutSequence":    {"text\x1b[3", "text"},
		"CutAtEscape":    {"text\x1b", "text"},
		"NoSequence":     {"a\x1b[\x01b", "a\x01b"},
		"ColouredBar":    {"\r\x1b[32m10%\x1b[0m\r\x1b[32m20%\x1b[0m\n", "20%\n"},
		"InvalidUTF8":    {"\xff\r\xfe\n", "\xfe\n"},
		"ManyInOneLine":  {string(bytes.Repeat([]byte("\r 12%"), 10_000)), " 12%"},
		"LineOfNothings": {"  \n", "  \n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := []byte(tt.in)
			require.Equal(t, tt.want, string(Fold(in)))
			require.Equal(t, tt.in, string(in), "its input stays")
		})
	}
}

func FuzzFold(f *testing.F) {
	f.Add([]byte("a\r\x1b[31mb\x1b[0m\r\n\x1b]0;t\x07\x1b\x1b[["))
	f.Fuzz(func(t *testing.T, in []byte) {
		once := Fold(in)
		require.LessOrEqual(t, len(once), len(in))
		require.Equal(t, bytes.Count(in, []byte("\n")), bytes.Count(once, []byte("\n")))
		require.NotContains(t, string(once), "\r")
		require.NotContains(t, string(once), "\x1b")
		require.Equal(t, string(once), string(Fold(once)))
	})
}
