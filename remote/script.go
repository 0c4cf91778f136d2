package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

//go:embed base.sh
var baseText string

//go:embed tree.sh
var treeText string

//go:embed supervise.sh
var superviseText string

//go:embed show.sh
var showText string

//go:embed job.sh
var jobText string

//go:embed brief.sh
var briefText string

//go:embed watch.sh
var watchText string

//go:embed ready.sh
var readyText string

//go:embed samples.sh
var samplesText string

//go:embed probe.sh
var probeText string

//go:embed files.sh
var filesText string

// The scripts that run on the machine. Each is stored there under a name that holds its hash, so that a newer
// version never changes one that a supervisor is still reading.
var (
	jobScript   = newScript("job", baseText+treeText+superviseText+showText+jobText)
	watchScript = newScript("watch", bare(baseText+treeText+superviseText+watchText))
	briefScript = newScript("brief", bare(baseText+showText+briefText))
	readyScript = newScript("ready", bare(baseText+treeText+superviseText+showText+readyText))
	probeScript = newScript("probe", baseText+samplesText+probeText)
	filesScript = newScript("files", filesText)
)

// bare drops comments and indents: the machine reads the script at each start of a job, and that takes time.
func bare(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimLeft(line, "\t"); line != "\n" && !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

type script struct{ file, text string }

func newScript(name, text string) script {
	sum := sha256.Sum256([]byte(text))
	return script{file: name + "-" + hex.EncodeToString(sum[:6]) + ".sh", text: text}
}

const (
	notInstalled = 97 // exit status for "the script is not there"
	replyMark    = "\x1egpulease\n"
	headLimit    = 256 << 10 // most bytes of a reply that are not data
)

// request is one call of a script.
type request struct {
	script script
	needs  []script // to be there too
	args   []string
	stdin  func() io.Reader // called once for each attempt
	list   []byte           // in place of stdin, for files.sh: it ends when the caller does, see held
	later  func() []byte    // the same where the list may not be known yet
	text   string           // in place of stdin: shell text to run before the script
	ready  string           // the same for a shell that waits for a job, see ready.go; empty when that is no way
	wait   time.Duration    // how long the script may take before it answers
	plain  bool             // text may be on a command line: sshd lets input come only a round trip later
	data   int64            // most bytes of raw data in the reply
	seen   func(field)      // called with each field as soon as it comes
	bulk   bool             // it carries files, see conn.bulk
	early  bool             // and is started before it is known what, see standby.go
	begun  func()           // called when it has its session
	hold   bool             // stdin stays open until the call ends: the script waits, and is to go when the caller does
}

// field is one "key value" line of a reply.
type field struct{ key, value string }

type reply struct {
	fields []field
	data   []byte
}

func (r reply) get(key string) string {
	for _, f := range r.fields {
		if f.key == key {
			return f.value
		}
	}
	return ""
}

// numbers parses the value of key as want integers.
func (r reply) numbers(key string, want int) ([]int64, error) {
	words := strings.Fields(r.get(key))
	if len(words) != want {
		return nil, fmt.Errorf("%w: %s %q", ErrMachine, key, r.get(key))
	}
	numbers := make([]int64, want)
	for i, w := range words {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%w: %s %q", ErrMachine, key, r.get(key))
		}
		numbers[i] = n
	}
	return numbers, nil
}

// call runs a script on n, and puts it there first when it is not there yet.
func (n *conn) call(ctx context.Context, r request) (reply, error) {
	if r.ready != "" {
		defer n.spawn(n.prepare)
		if parsed, err := n.askReady(ctx, r); !errors.Is(err, errNotReady) {
			return parsed, err
		}
	}
	for installed := false; ; installed = true {
		var in io.Reader
		switch {
		case r.hold:
			read, write := io.Pipe()
			defer func() { _ = write.Close() }()
			in = read
		case r.stdin != nil:
			in = r.stdin()
		}
		args := r.args
		var release func()
		switch {
		case r.list != nil:
			args, in, release = held(r.args, r.list)
			defer release()
		case r.later != nil:
			args, in, release = heldLater(r.args, r.later)
			defer release()
		}
		command := r.script.command(args)
		switch {
		case r.plain:
			command, in = "exec sh -c "+quote(r.script.inline(r.args, r.text)), nil
		case r.text != "":
			command, in = "exec sh -s", strings.NewReader(r.script.inline(r.args, r.text))
		}
		out, errs := &capped{limit: r.data + headLimit}, &capped{limit: 4 << 10}
		status, err := n.exec(ctx, execution{
			command: command, stdin: in, stdout: &watched{to: out, seen: r.seen}, stderr: errs, bulk: r.bulk,
			standby: r.early, begun: r.begun,
		})
		switch {
		case err != nil:
			return reply{}, err
		case status == notInstalled && r.early: // with what it was to be given, which cannot be given again
			return reply{}, n.wentAway(r.script)
		case status == notInstalled && !installed:
			for _, s := range append(r.needs, r.script) {
				if err := n.install(ctx, s); err != nil {
					return reply{}, err
				}
			}
			continue
		}
		if r.script == filesScript && status != notInstalled {
			n.scripts.Store(true)
		}
		if out.over {
			return reply{}, fmt.Errorf("%w: more than %d bytes", ErrMachine, out.limit)
		}
		parsed, ok := parseReply(out.Bytes())
		if !ok {
			return reply{}, fmt.Errorf("%w: %s %s: exit status %d: %s", ErrMachine, r.script.file, r.args[0], status, printable(errs.Bytes()))
		}
		return parsed, parsed.failure()
	}
}

// wentAway is the error that a script which was there is not. Asked again, the next call puts it there.
func (n *conn) wentAway(s script) error {
	n.scripts.Store(false)
	return fmt.Errorf("%w: script %s went away", ErrConnLost, s.file)
}

// command is the line that the login shell on the machine gets: nothing but single quotes, which all shells know.
func (s script) command(args []string) string {
	line := `exec sh -c 'f=$HOME/.gpulease/lib/` + s.file + `; [ -f "$f" ] || exit ` + strconv.Itoa(notInstalled) + `; exec sh "$f" "$@"' sh`
	for _, a := range args {
		line += " " + quote(a)
	}
	return line
}

// inline is a script for "sh -s" that runs text and then s as a part of itself: it starts a process less, and nothing of
// it is on a command line. Cut short it does nothing, since its last lines are what does something.
func (s script) inline(args []string, text string) string {
	line := "set --"
	for _, a := range args {
		line += " " + quote(a)
	}
	return line + "\n" + text + `gl_watch=$HOME/.gpulease/lib/` + watchScript.file + `
gl_self=$HOME/.gpulease/lib/` + s.file + `
[ -f "$gl_self" ] && [ -f "$gl_watch" ] && [ -f "$HOME/.gpulease/lib/` + jobScript.file + `" ] && [ -f "$HOME/.gpulease/lib/` + readyScript.file + `" ] || exit ` + strconv.Itoa(notInstalled) + `
. "$gl_self"
exit
`
}

// install stores the script on the machine, by rename and only if it has come whole.
func (n *conn) install(ctx context.Context, s script) error {
	errs := &capped{limit: 4 << 10}
	line := fmt.Sprintf(`exec sh -c 'umask 077; cd && mkdir -p .gpulease/lib && cd .gpulease/lib && cat >new.$$ && [ "$(wc -c <new.$$)" -eq %d ] && mv -f new.$$ %s'`, len(s.text), s.file)
	status, err := n.exec(ctx, execution{command: line, stdin: strings.NewReader(s.text), stdout: io.Discard, stderr: errs})
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("install %s: %w: exit status %d: %s", s.file, ErrStorage, status, printable(errs.Bytes()))
	}
	return nil
}

// parseReply finds the reply in what the command wrote: a login script may have printed something before it.
func parseReply(out []byte) (reply, bool) {
	_, out, found := bytes.Cut(out, []byte(replyMark))
	if !found {
		return reply{}, false
	}
	var r reply
	for {
		line, rest, found := bytes.Cut(out, []byte("\n"))
		if !found {
			return reply{}, false
		}
		out = rest
		if len(line) == 0 {
			r.data = out
			return r, true
		}
		key, value, _ := strings.Cut(string(line), " ")
		r.fields = append(r.fields, field{key, value})
	}
}

// failure is the error that the script itself reported.
func (r reply) failure() error {
	text := r.get("error")
	if text == "" {
		return nil
	}
	code, text, _ := strings.Cut(text, " ")
	kind := ErrMachine
	switch code {
	case "notfound":
		kind = ErrJobNotFound
	case "directory":
		kind = ErrDirectory
	case "pattern":
		kind = ErrInvalid
	case "conflict":
		kind = ErrConflict
	case "storage":
		kind = ErrStorage
	case "gone":
		kind = ErrGone
	case "long":
		kind = errLong
	case "moving":
		kind = errMoving
	case "unsupported":
		kind = ErrUnsupported
	}
	return fmt.Errorf("%w: %s", kind, printable([]byte(text)))
}

var special = regexp.MustCompile(`['\\]+`)

// quote makes s one word for any shell: fish knows escapes between single quotes, so that no backslash stands there.
func quote(s string) string {
	return "'" + special.ReplaceAllStringFunc(s, func(run string) string {
		var b strings.Builder
		b.WriteByte('\'')
		for _, c := range []byte(run) {
			b.Write([]byte{'\\', c})
		}
		b.WriteByte('\'')
		return b.String()
	}) + "'"
}

// printable is what of b may go into an error: one line, no control characters, not long.
func printable(b []byte) string {
	if len(b) > 400 {
		b = append(b[:400:400], "…"...)
	}
	clean := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
	return strings.TrimSpace(clean)
}

// watched tells of each line that passes through it.
type watched struct {
	to   io.Writer
	seen func(field)
	line []byte
}

func (w *watched) Write(p []byte) (int, error) {
	if w.seen == nil {
		return w.to.Write(p)
	}
	for _, c := range p {
		if c != '\n' {
			if len(w.line) < 256 {
				w.line = append(w.line, c)
			}
			continue
		}
		key, value, _ := strings.Cut(string(w.line), " ")
		w.seen(field{key, value})
		w.line = w.line[:0]
	}
	return w.to.Write(p)
}

// capped keeps the first limit bytes and takes the rest without an error.
type capped struct {
	kept  bytes.Buffer // not embedded: io.Copy would fill it past the limit
	limit int64
	over  bool
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.limit - int64(c.kept.Len())
	if int64(len(p)) > room {
		c.over = true
		c.kept.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return c.kept.Write(p)
}

// Bytes are those that were kept.
func (c *capped) Bytes() []byte { return c.kept.Bytes() }
