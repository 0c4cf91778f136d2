package tools

import (
	"regexp"
	"slices"
	"strings"
)

// instead says who does what a tool does that is not served, where somebody can.
var instead = map[string]string{
	"launch_lease": "this server launches nothing",
	"stop_lease":   "a person ends a lease with gpulease stop",
	"extend_lease": "a person extends a lease with gpulease extend",
	"get_lease":    "a person sees a lease with gpulease leases",
	"list_leases":  "a person sees the leases with gpulease leases",
	"spend_report": "a person sees the spending with gpulease spend",
}

var (
	anyTool = regexp.MustCompile(`\b(?:` + strings.Join(toolNames(), "|") + `)\b`)
	// aPart begins a part of a text about what to do: another sentence, or the next tool.
	aPart = regexp.MustCompile(`; |(?:, then |, and |, or |, | and | or |: |\. )(?:(?:call|again) )*(?:` + strings.Join(toolNames(), "|") + `)\b`)
	// left begins a part that has lost the one before.
	left = regexp.MustCompile(`^(?:; |, then |, and |, or |, | and | or |: |\. )(?:and |or )?`)
)

func toolNames() (names []string) {
	for _, set := range toolsets {
		names = append(names, set.tools...)
	}
	return names
}

// Beside are the names of the tools that are served beside this one and itself, nil where
// nobody has chosen.
func (t Tool) Beside() []string {
	if t.served == nil {
		return nil
	}
	return *t.served
}

// Served leaves out of a text what names tools that are not served, and says what there
// is instead. served are their names; nil is all.
func Served(text string, served []string) string {
	absent := func(part string) string {
		for _, name := range anyTool.FindAllString(part, -1) {
			if !slices.Contains(served, name) {
				return name
			}
		}
		return ""
	}
	if served == nil || absent(text) == "" {
		return text
	}
	var b strings.Builder
	var remarks []string
	for _, part := range parts(text) {
		name := absent(part)
		switch {
		case name == "" && b.Len() == 0:
			b.WriteString(left.ReplaceAllString(part, ""))
		case name == "":
			b.WriteString(part)
		default:
			remark := instead[name]
			if remark == "" {
				remark = "this server has no " + strings.ReplaceAll(name, "_", " ")
			}
			if !slices.Contains(remarks, remark) {
				remarks = append(remarks, remark)
			}
		}
	}
	if b.Len() > 0 {
		remarks = append([]string{b.String()}, remarks...)
	}
	return strings.Join(remarks, "; ")
}

// parts are the whole of a text, each with what stands between it and the one before.
func parts(text string) (list []string) {
	from := 0
	for _, at := range aPart.FindAllStringIndex(text, -1) {
		if at[0] > from {
			list = append(list, text[from:at[0]])
			from = at[0]
		}
	}
	return append(list, text[from:])
}
