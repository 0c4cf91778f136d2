package remote

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The kernel's words, as "dmesg" prints them, without their time.
var (
	xidLine    = regexp.MustCompile(`NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): ([0-9]+)(?:, (.*))?$`)
	killedLine = regexp.MustCompile(`Killed process ([0-9]+) \(([^)]*)\)`)
)

// xids says of NVIDIA's error numbers what a reader must know: whether the program or the machine is to blame.
var xids = map[int]string{
	13:  "the program made an illegal access or instruction on the GPU",
	31:  "the program accessed GPU memory that is not its own",
	43:  "the program's work on the GPU was stopped after an error of its own",
	45:  "the program's work on the GPU was cleaned away after an earlier error or its end",
	48:  "GPU memory has an error that cannot be corrected",
	62:  "the GPU's own controller failed",
	63:  "a row of GPU memory was replaced",
	64:  "a bad row of GPU memory could not be replaced",
	74:  "the NVLink connection failed",
	79:  "the GPU has fallen off the bus: the machine is broken",
	94:  "an error of GPU memory that hit this program only",
	95:  "an error of GPU memory that hit everything on the GPU",
	119: "the GPU's own processor does not answer: the machine is broken",
	120: "the GPU's own processor failed: the machine is broken",
}

// broken are the numbers that no program can cause: a machine that shows one has hardware that failed.
var broken = []string{"48", "62", "64", "79", "95", "119", "120"}

// brokenBy is the first line of the kernel's that says that a GPU has failed, for people.
func brokenBy(kernel string) string {
	for line := range strings.Lines(kernel) {
		line = printable([]byte(line))
		if m := xidLine.FindStringSubmatch(line); m != nil && slices.Contains(broken, m[2]) {
			return trouble("kernel " + line)
		}
	}
	return ""
}

// trouble makes a line of job.sh's file of that name one for people.
func trouble(line string) string {
	source, text, _ := strings.Cut(printable([]byte(line)), " ")
	if source != "kernel" {
		return text
	}
	if m := xidLine.FindStringSubmatch(text); m != nil {
		number, _ := strconv.Atoi(m[2])
		meaning := xids[number]
		switch {
		case meaning == "":
			meaning = m[3]
		case m[3] != "":
			meaning += " (" + m[3] + ")"
		}
		return fmt.Sprintf("Xid %s on GPU %s: %s", m[2], m[1], meaning)
	}
	if m := killedLine.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("killed for lack of memory: process %s (%s)", m[1], m[2])
	}
	return text
}
