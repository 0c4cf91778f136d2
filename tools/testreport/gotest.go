package testreport

import (
	"bytes"
	"encoding/json"
	"strings"
)

// event is a line of "go test -json" (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// goEvent reports whether a line is such an event.
func goEvent(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("{")) || !bytes.Contains(line, []byte(`"Action":`)) {
		return false
	}
	var e event
	return json.Unmarshal(line, &e) == nil && e.Action != ""
}

// goTests sums up events. A test that failed because one below it did is not
// counted twice: the one below says why. What fails outside of any test, such as
// a build, is a failure of its package.
type goTests struct {
	sum    Summary
	open   map[string]*openTest // tests and packages that run
	failed map[string]bool      // packages with a failed test
}

// openTest is a test that runs.
type openTest struct {
	output    string // the end of it
	childFail bool
	child     bool // it has tests below it
}

func (g *goTests) line(text []byte, cut bool) {
	var e event
	if cut || json.Unmarshal(text, &e) != nil {
		return // a program's own output between the events
	}
	key := e.Package + "\x00" + e.Test
	t := g.open[key]
	if t == nil {
		t = &openTest{}
		if len(g.open) < maxOpen {
			g.open[key] = t
		}
	}
	switch e.Action {
	case "output", "build-output":
		if !strings.HasPrefix(e.Output, "=== ") {
			t.output = end(t.output+e.Output, 2*maxText)
		}
	case "pass", "fail", "skip":
		delete(g.open, key)
		g.over(e, t)
	}
}

func (g *goTests) over(e event, t *openTest) {
	if e.Test == "" {
		if e.Action == "fail" && !g.failed[e.Package] {
			g.sum.fail(e.Package, t.output)
		}
		delete(g.failed, e.Package)
		return
	}
	parent := g.open[e.Package+"\x00"+e.Test[:max(strings.LastIndexByte(e.Test, '/'), 0)]]
	if parent != nil && strings.Contains(e.Test, "/") {
		parent.child = true
		parent.childFail = parent.childFail || e.Action == "fail"
	}
	switch e.Action {
	case "skip":
		g.sum.Skipped++
	case "fail":
		if g.failed == nil {
			g.failed = map[string]bool{}
		}
		if len(g.failed) < maxOpen {
			g.failed[e.Package] = true
		}
		if !t.childFail {
			g.sum.fail(strings.TrimPrefix(e.Package+"."+e.Test, "."), t.output)
		}
	default:
		if !t.child {
			g.sum.Passed++
		}
	}
}

func (g *goTests) end() Summary {
	s := g.sum
	s.Format = "go"
	s.Partial = len(g.open) > 0
	return s
}
