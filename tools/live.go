package tools

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

const (
	// liveSlice is how often a job is looked at for a person who watches it.
	liveSlice = 2 * time.Second
	// liveRead is how much of what a stream has gained is read for a note, in bytes, and
	// liveLines and liveBytes how much of that a note shows: the end of it.
	liveRead  = 4 << 10
	liveLines = 8
	liveBytes = 800
)

// live tells whoever has asked for progress what a job writes, while it is waited for.
type live struct {
	l      Worker
	hidden *secrets
	began  time.Time
	shown  map[remote.Stream]int64 // up to where whole lines were told
	size   map[remote.Stream]int64 // at the last look
}

func newLive(l Worker, hidden *secrets, began time.Time) *live {
	return &live{l: l, hidden: hidden, began: began, shown: map[remote.Stream]int64{}, size: map[remote.Stream]int64{}}
}

// note tells where a job stands, and the last lines of what is new. What cannot be read
// for a moment is left out: it is for people only.
func (v *live) note(ctx context.Context, j lease.Job) {
	text := fmt.Sprintf("running for %d s, %d bytes of output", int(time.Since(v.began).Seconds()), j.StdoutBytes+j.StderrBytes)
	for _, stream := range []remote.Stream{remote.Stdout, remote.Stderr} {
		size := j.StdoutBytes
		if stream == remote.Stderr {
			size = j.StderrBytes
		}
		if size <= v.size[stream] {
			continue
		}
		v.size[stream] = size
		from := max(v.shown[stream], size-liveRead)
		page, owner, err := v.l.Page(ctx, j.ID, stream, from, liveRead, 0)
		if err != nil {
			continue
		}
		if at := bytes.LastIndexByte(page.Data, '\n'); at >= 0 {
			v.shown[stream] = page.Offset + int64(at) + 1
		}
		text += lastLines(v.hidden.mask(owner.ID, page.Data), stream)
	}
	Progress(ctx).Note(text)
}

// lastLines is the end of a piece of a stream as a person sees it.
func lastLines(piece []byte, stream remote.Stream) string {
	lines := strings.Split(strings.TrimRight(valid(string(remote.Fold(piece))), "\n "), "\n")
	lines = lines[max(0, len(lines)-liveLines):]
	text := strings.Join(lines, "\n")
	if over := len(text) - liveBytes; over > 0 {
		text = "…" + string(wholeStart([]byte(text[over:])))
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
	switch {
	case strings.TrimSpace(text) == "":
		return ""
	case stream == remote.Stderr:
		return "\nstderr:\n" + text
	}
	return "\n" + text
}
