package testreport

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// junit reads JUnit XML as a stream of tokens. Test programs agree on testcase
// with failure, error or skipped inside, and on little else, so that is all that
// is looked at; what suites say of their numbers is not.
type junit struct {
	text []byte // what has come and is not counted
	next int    // how long it must be to be looked at again
	sum  Summary
	cut  bool
	over bool
}

// Of a report so much is held at once; a testcase with more output of its own is cut.
const (
	mostText  = 1 << 20
	firstText = 16 << 10
)

func (j *junit) write(p []byte) {
	for len(p) > 0 {
		n := min(len(p), firstText)
		j.text, p = append(j.text, p[:n]...), p[n:]
		if len(j.text) < max(j.next, firstText) {
			continue
		}
		j.take()
		if len(j.text) > mostText {
			j.text, j.cut = nil, true
		}
		j.next = min(2*len(j.text), mostText+1) // a testcase that is not whole is not read anew for each piece
	}
}

// take counts the testcases that are whole and keeps what is behind them.
func (j *junit) take() {
	for {
		begin := bytes.Index(j.text, []byte("<testcase"))
		if begin < 0 {
			break
		}
		j.text = j.text[begin:]
		used, ok := j.testcase(j.text)
		if !ok {
			return
		}
		j.text = j.text[used:]
	}
	j.over = j.over || bytes.Contains(j.text, []byte("</testsuite"))
	j.text = bytes.Clone(j.text[max(0, len(j.text)-len("</testsuites>")):]) // a tag may be cut in two
}

// testcase reads one from the start of data; it is false where that is not whole.
func (j *junit) testcase(data []byte) (used int, ok bool) {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.Strict = false
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	var name, class, verdict, message string
	var body strings.Builder
	depth := 0
	for {
		token, err := d.Token()
		if err != nil {
			var broken *xml.SyntaxError
			if errors.As(err, &broken) && !strings.Contains(broken.Msg, "unexpected EOF") {
				return len("<testcase"), true // of no use: on to the next
			}
			return 0, false
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			if depth == 1 {
				name, class = attribute(t, "name"), attribute(t, "classname")
			} else if kind := t.Name.Local; depth == 2 && verdict == "" && (kind == "failure" || kind == "error" || kind == "skipped") {
				verdict, message = kind, attribute(t, "message")
			}
		case xml.CharData:
			if depth == 2 && verdict != "" && verdict != "skipped" && body.Len() < maxText {
				body.Write(t[:min(len(t), 4*maxText)])
			}
		case xml.EndElement:
			if depth--; depth > 0 {
				continue
			}
			switch verdict {
			case "":
				j.sum.Passed++
			case "skipped":
				j.sum.Skipped++
			default:
				text := message
				if text == "" {
					text = body.String()
				}
				j.sum.fail(strings.TrimPrefix(class+"."+name, "."), text)
			}
			return int(d.InputOffset()), true
		}
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (j *junit) end() Summary {
	j.take()
	s := j.sum
	s.Format, s.Partial = "junit", j.cut || !j.over
	return s
}
