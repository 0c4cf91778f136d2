package remote

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// DefaultOutputLimit is how many bytes a job may write to stdout and stderr together when it names no limit.
const DefaultOutputLimit = 2 << 30

const (
	longestWord    = 100 << 10       // Linux takes no argument and no variable over 128 KiB
	longestShown   = 4 << 10         // of Job.Command
	timeoutGrace   = 5 * time.Second // between the first signal and SIGKILL at a timeout or output limit
	markVariable   = "GPULEASE_JOB_ID"
	mostParcelData = 64 << 20
)

// Command is what a job runs. Nothing of Env and Stdin is ever on a command line.
type Command struct {
	Shell string   // run by bash -c, or by sh -c where there is no bash
	Argv  []string // or the program and its arguments, without a shell; exactly one of the two
	// Dir is absolute, or relative to the home directory; "~/x" is x. Empty is the home directory.
	Dir string
	Env map[string]string // added to what the machine's login gives
	// Stdin is read by the command; without it there is an empty one. At most 64 MiB.
	Stdin []byte
	// Timeout ends the job with reason "timeout": SIGINT, SIGTERM, after 5 s SIGKILL. 0 is none.
	Timeout time.Duration
	// OutputTimeout ends the job in the same way, with reason "no_output", when it has written nothing for so long,
	// whatever else it does. 0 is none.
	OutputTimeout time.Duration
	// IdleTimeout is for [Job].Hanging and ends nothing: for so long no output, hardly any processor time, and no busy
	// GPU on the machine, as far as its GPUs can be asked. 0 is none.
	IdleTimeout time.Duration
	// OutputLimit ends the job with reason "output_limit" when both streams together are longer. It is looked at
	// 2 to 50 times a second, so the files may get longer than that until the end; then the longer stream is cut to
	// what the limit allows, and a line in it says so. 0 is DefaultOutputLimit; negative is none.
	OutputLimit int64

	long bool // the machine does not take the short way
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (c Command) validate() error {
	if (c.Shell == "") == (len(c.Argv) == 0) {
		return invalid("give a shell command or an argument list, and not both")
	}
	for _, word := range append([]string{c.Shell, c.Dir}, c.Argv...) {
		if strings.ContainsRune(word, 0) {
			return invalid("a NUL byte in the command")
		}
		if len(word) > longestWord {
			return invalid("a command or argument of %d bytes; at most %d, put more into a file or stdin", len(word), longestWord)
		}
	}
	if len(c.Argv) > 0 && (c.Argv[0] == "" || strings.HasPrefix(c.Argv[0], "-")) {
		return invalid("program %q", c.Argv[0])
	}
	for name, value := range c.Env {
		switch {
		case !variable.MatchString(name):
			return invalid("environment variable name %q", name)
		case name == markVariable:
			return invalid("environment variable %s is the job's own mark", name)
		case strings.ContainsRune(value, 0):
			return invalid("a NUL byte in environment variable %s", name)
		case len(value) > longestWord:
			return invalid("environment variable %s has %d bytes; at most %d", name, len(value), longestWord)
		}
	}
	if len(c.Stdin) > mostParcelData {
		return invalid("stdin of %d bytes; at most %d, send a file instead", len(c.Stdin), mostParcelData)
	}
	return nil
}

// longestText is how much a job may be for the short way, in bytes.
const longestText = 32 << 10

// errLong says that the machine cannot start a job the short way.
var errLong = errors.New("the short way is not possible here")

// pack puts the command into a request. What is short and has no input goes as text, the rest as a tar: see "brief" and
// "start" in job.sh.
func (c *Command) pack(r *request) error {
	if text, err := c.text(); err != nil {
		return err
	} else if !c.long && len(c.Stdin) == 0 && len(text) <= longestText {
		// A command is to be seen by its own line when it runs, but its variables are not.
		// Two of them show what comes of the job and bring its files: a job that fills the disk must not keep them away.
		r.script, r.needs = briefScript, []script{watchScript, jobScript, readyScript, filesScript}
		r.args[0], r.text, r.plain = "brief", text, len(c.Env) == 0 && len(text) <= longestText/2
		if r.wait > 0 {
			r.ready = readyJob(r.args, text)
		}
		return nil
	}
	parcel, err := c.parcel()
	r.stdin = func() io.Reader { return bytes.NewReader(parcel) }
	return err
}

// text sets gl_dir, and gl_text to what the supervisor takes: the options, what "list" shows, and gl_run.
func (c *Command) text() (string, error) {
	shown, err := json.Marshal(c.String())
	if err != nil {
		return "", fmt.Errorf("encode command: %w", err)
	}
	text := c.options() + "gl_shown=" + quote(string(shown)) + "\ngl_run() {\n" + c.run() + "}\n"
	return "gl_dir=" + quote(remoteDir(c.Dir)) + "\ngl_text=" + quote(text) + "\n", nil
}

// run is the body of gl_run, which becomes the command. It does what script does, in the process that the supervisor has
// forked for it, whose pid only the kernel can tell.
func (c *Command) run() string {
	var b strings.Builder
	b.WriteString(`{ read -r gl_stat <"$gl_proc/self/stat"; } 2>/dev/null` + "\n")
	b.WriteString(`echo "${gl_stat%% *} ${gl_stat##*) }" >"$gl_job/main"` + "\n")
	b.WriteString(`[ ! -d /run/systemd/system ] || sh "$gl_self" scope "$gl_id" "${gl_stat%% *}" </dev/null >/dev/null 2>&1` + "\n")
	b.WriteString(`[ "${SHLVL:-0}" -ge 1 ] || export SHLVL=1` + "\n")
	// A PATH of the command's own must not decide which programs start it.
	if _, own := c.Env["PATH"]; own {
		b.WriteString("gl_i=$(command -v setsid)\ngl_f=$(command -v bash || command -v sh)\n")
	} else {
		b.WriteString("gl_i=setsid gl_f=bash\ncommand -v bash >/dev/null || gl_f=sh\n")
	}
	b.WriteString(c.words("$gl_f"))
	b.WriteString("exec \"$gl_i\" \"$@\"\n")
	return b.String()
}

// parcel is the tar that job.sh takes: the files of the job's directory, and "end" to show that it came whole.
func (c Command) parcel() ([]byte, error) {
	shown, err := json.Marshal(c.String())
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"cmd", []byte(c.script())},
		{"opt", []byte(c.options())},
		{"command", append(shown, '\n')},
		{"stdin", c.Stdin},
		{"end", nil},
	} {
		h := &tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.data)), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack job: %w", err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("pack job: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack job: %w", err)
	}
	return out.Bytes(), nil
}

// script is the file cmd. It notes its own pid, which the command keeps through exec. The shell is looked up
// before Env can change PATH.
func (c Command) script() string {
	var b strings.Builder
	b.WriteString(`{ read -r gl_stat <"${GPULEASE_PROC:-/proc}/$$/stat"; } 2>/dev/null` + "\n")
	b.WriteString(`echo "$$ ${gl_stat##*) }" >"${0%/*}/main"` + "\n")
	// $1 is job.sh, which moves the command into a scope of its own where there is systemd.
	b.WriteString(`[ ! -d /run/systemd/system ] || sh "$1" scope "$GPULEASE_JOB_ID" "$$" </dev/null >/dev/null 2>&1` + "\n")
	b.WriteString(`[ "${SHLVL:-0}" -ge 1 ] || export SHLVL=1` + "\n") // see launch in job.sh
	b.WriteString(c.words("$(command -v bash || command -v sh)"))
	b.WriteString("exec \"$@\"\n")
	return b.String()
}

// words sets the words to run, a shell command's by the given shell, and the variables.
func (c Command) words(shell string) string {
	var b strings.Builder
	if c.Shell != "" {
		fmt.Fprintf(&b, "set -- \"%s\" -c %s\n", shell, quote(c.Shell))
	} else {
		b.WriteString("set --")
		for _, a := range c.Argv {
			b.WriteString(" " + quote(a))
		}
		b.WriteString("\n")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(c.Env[name]))
	}
	return b.String()
}

// options is the file opt, read by job.sh itself.
func (c Command) options() string {
	limit := c.OutputLimit
	if limit == 0 {
		limit = DefaultOutputLimit
	}
	return fmt.Sprintf("gl_dir=%s\ngl_timeout=%d\ngl_silence=%d\ngl_idle=%d\ngl_limit=%d\ngl_grace=%d\n",
		quote(remoteDir(c.Dir)), centiseconds(c.Timeout), centiseconds(c.OutputTimeout), centiseconds(c.IdleTimeout), max(limit, 0), centiseconds(timeoutGrace))
}

// remoteDir makes a directory one that cd takes as it stands: no option, no CDPATH, no tilde.
func remoteDir(dir string) string {
	if dir == "~" {
		return "."
	}
	dir = strings.TrimPrefix(dir, "~/")
	if strings.HasPrefix(dir, "/") {
		return dir
	}
	return "./" + dir
}

// String is the command line for people, as [Job].Command has it: cut at 4 KiB, and nothing of Env and Stdin.
func (c Command) String() string {
	text := c.Shell
	if text == "" {
		words := make([]string, len(c.Argv))
		for i, a := range c.Argv {
			words[i] = a
			if a == "" || strings.ContainsAny(a, " \t\n'\"\\$`*?[](){}<>|&;#~!") {
				words[i] = quote(a)
			}
		}
		text = strings.Join(words, " ")
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= longestShown {
		return text
	}
	cut := longestShown
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
