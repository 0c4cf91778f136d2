package testreport_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/tools/testreport"
)

func sumUp(text string, piece int) (testreport.Summary, bool) {
	r := &testreport.Reader{}
	for len(text) > 0 {
		n := min(piece, len(text))
		_, _ = r.Write([]byte(text[:n]))
		text = text[n:]
	}
	return r.Summary()
}

const goReport = `go: downloading example.com/x v1.0.0
{"Time":"2026-11-27T10:00:00Z","Action":"start","Package":"ex/a"}
{"Action":"run","Package":"ex/a","Test":"TestA"}
{"Action":"output","Package":"ex/a","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"ex/a","Test":"TestA","Elapsed":0}
printed by the program itself
{"Action":"run","Package":"ex/a","Test":"TestB"}
{"Action":"run","Package":"ex/a","Test":"TestB/one"}
{"Action":"output","Package":"ex/a","Test":"TestB/one","Output":"    b_test.go:7: got 1, want 2\n"}
{"Action":"fail","Package":"ex/a","Test":"TestB/one"}
{"Action":"run","Package":"ex/a","Test":"TestB/two"}
{"Action":"pass","Package":"ex/a","Test":"TestB/two"}
{"Action":"fail","Package":"ex/a","Test":"TestB"}
{"Action":"skip","Package":"ex/a","Test":"TestC"}
{"Action":"fail","Package":"ex/a"}
{"Action":"start","Package":"ex/b"}
{"Action":"output","Package":"ex/b","Output":"b.go:3:1: syntax error\n"}
{"Action":"fail","Package":"ex/b"}
`

const junitReport = `<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" tests="9"><testcase classname="t.m" name="test_ok" time="0.1" />` +
	`<testcase classname="t.m" name="test_bad"><failure message="assert 1 == 2">def test_bad():
&gt; assert 1 == 2</failure><system-out><![CDATA[ </testcase> <testcase name="not one"/> ]]></system-out></testcase>` +
	`<testcase classname="t.m" name="test_err"><error>fixture not found</error></testcase>
<testcase classname="t.m" name="test_skip"><skipped message="no GPU"/></testcase></testsuite></testsuites>`

func TestSummary(t *testing.T) {
	for _, piece := range []int{1, 7, 1 << 20} {
		s, ok := sumUp(goReport, piece)
		require.True(t, ok)
		require.Equal(t, testreport.Summary{Format: "go", Passed: 2, Failed: 2, Skipped: 1, Failures: []testreport.Failure{
			{Name: "ex/a.TestB/one", Text: "b_test.go:7: got 1, want 2"}, {Name: "ex/b", Text: "b.go:3:1: syntax error"},
		}}, s)

		s, ok = sumUp(junitReport, piece)
		require.True(t, ok)
		require.Equal(t, testreport.Summary{Format: "junit", Passed: 1, Failed: 2, Skipped: 1, Failures: []testreport.Failure{
			{Name: "t.m.test_bad", Text: "assert 1 == 2"}, {Name: "t.m.test_err", Text: "fixture not found"},
		}}, s)
	}
}

func TestAReportThatBreaksOffIsPartial(t *testing.T) {
	s, ok := sumUp(goReport[:strings.Index(goReport, `{"Action":"fail","Package":"ex/a","Test":"TestB"}`)], 100)
	require.True(t, ok)
	require.True(t, s.Partial)
	require.Equal(t, 1, s.Failed)

	s, ok = sumUp(junitReport[:strings.Index(junitReport, "fixture")], 100)
	require.True(t, ok)
	require.True(t, s.Partial)
	require.Equal(t, []int{1, 1, 0}, []int{s.Passed, s.Failed, s.Skipped})
}

func TestWhatIsNoReport(t *testing.T) {
	for _, text := range []string{"", "hello\n", `{"loss": 0.1}` + "\n", `{"Action":""}`, "<html></html>", "<?xml version='1.0'?><a/>", "{\"Action\":\n", strings.Repeat("x", 1<<20)} {
		_, ok := sumUp(text, 1000)
		require.False(t, ok, "%.50s", text)
	}
	require.True(t, testreport.Looks([]byte(goReport[:200])))
	require.True(t, testreport.Looks([]byte(junitReport[:100])))
	require.False(t, testreport.Looks([]byte("epoch 1\n")))
}

func TestLargeReportsAreBounded(t *testing.T) {
	var report strings.Builder
	report.WriteString("<testsuite>")
	for i := range 20_000 {
		fmt.Fprintf(&report, `<testcase name="t%d"><failure message="%s"/></testcase>`, i, strings.Repeat("m", 2000))
	}
	fmt.Fprintf(&report, `<testcase name="loud"><system-out>%s</system-out></testcase><testcase name="last"/></testsuite>`, strings.Repeat("<a/>\n", 1<<20))
	s, ok := sumUp(report.String(), 32<<10)
	require.True(t, ok)
	require.Equal(t, 20_000, s.Failed)
	require.Len(t, s.Failures, testreport.MaxFailures)
	require.Less(t, len(s.Failures[0].Text), 600)
	require.Equal(t, 1, s.Passed, "the last; the loud one is too long to be read")
	require.True(t, s.Partial)
}

func FuzzSummary(f *testing.F) {
	f.Add(goReport, 5)
	f.Add(junitReport, 5)
	f.Add("<testsuite><testcase><testcase></failure>", 1)
	f.Fuzz(func(t *testing.T, text string, piece int) {
		s, ok := sumUp(text, max(1, piece))
		whole, okWhole := sumUp(text, max(1, len(text)))
		require.Equal(t, okWhole, ok)
		if ok {
			require.Equal(t, whole, s, "however it is cut into pieces")
		}
		for _, n := range []int{s.Passed, s.Failed - len(s.Failures), s.Skipped} {
			require.GreaterOrEqual(t, n, 0)
		}
	})
}
