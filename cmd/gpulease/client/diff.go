package client

import (
	"bytes"
	"fmt"
	"strings"
)

// longLine is from where on only the part of a line that changes is shown.
const longLine = 200

// Diff shows the lines that change, and none besides: other servers' secrets may
// be in the next line.
func (e Edit) Diff() string {
	if !e.Changes() {
		return ""
	}
	old, now := splitLines(e.Before), splitLines(e.After)
	head, tail := equalEnds(old, now)
	var b strings.Builder
	name := e.Path
	if e.Before == nil {
		name = "/dev/null"
	}
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", name, e.Path)
	hunk(&b, old[head:len(old)-tail], now[head:len(now)-tail], head)
	return b.String()
}

// hunk shows the lines between the equal ends, by their longest common sequence.
// Equal lines within are left out. Of a line that only gets or loses a comma, and of
// long ones, what stays is left out as well.
func hunk(b *strings.Builder, old, now []string, offset int) {
	if len(old) > 0 && len(now) > 0 {
		a, b := middles(old[0], now[0])
		if len(a)+len(b) == len("…………,") || len(old) == 1 && len(now) == 1 && len(old[0])+len(now[0]) > longLine {
			old[0], now[0] = a, b
		}
	}
	if len(old)*len(now) > 4<<20 {
		old, now = []string{fmt.Sprintf("(%d lines)", len(old))}, []string{fmt.Sprintf("(%d lines)", len(now))}
	}
	common := make([][]int, len(old)+1)
	for i := range common {
		common[i] = make([]int, len(now)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(now) - 1; j >= 0; j-- {
			if old[i] == now[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	gap := true
	for i, j := 0, 0; i < len(old) || j < len(now); {
		if i < len(old) && j < len(now) && old[i] == now[j] {
			i, j, gap = i+1, j+1, true
			continue
		}
		if gap {
			fmt.Fprintf(b, "@@ line %d @@\n", offset+j+1)
			gap = false
		}
		if j == len(now) || i < len(old) && common[i+1][j] >= common[i][j+1] {
			fmt.Fprintf(b, "-%s\n", old[i])
			i++
		} else {
			fmt.Fprintf(b, "+%s\n", now[j])
			j++
		}
	}
}

// middles are two lines without their equal ends.
func middles(a, b string) (string, string) {
	x, y := []rune(a), []rune(b)
	head, tail := equalEnds(x, y)
	return "…" + string(x[head:len(x)-tail]) + "…", "…" + string(y[head:len(y)-tail]) + "…"
}

// equalEnds is how many of the first and of the last are the same in both.
func equalEnds[T comparable](a, b []T) (head, tail int) {
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}

func splitLines(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	lines := strings.Split(string(text), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	return lines
}
