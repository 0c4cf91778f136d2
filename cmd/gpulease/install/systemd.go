package install

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Unit is the name of the systemd unit that is enabled.
func (s Service) Unit() string {
	if s.Every > 0 {
		return s.base() + ".timer"
	}
	return s.base() + ".service"
}

func (s Service) base() string { return "gpulease-" + s.Name }

// Systemd are the user units for dir, signed.
func (s Service) Systemd(dir string) ([]File, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	files := []File{{filepath.Join(dir, s.base()+".service"), s.unit()}}
	if s.Every > 0 {
		files = append(files, File{filepath.Join(dir, s.base()+".timer"), s.timer()})
	}
	for i, f := range files {
		files[i].Text = sign(f.Text, "# ", "")
	}
	return files, nil
}

func (s Service) unit() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by gpulease install %s. Your changes belong into a drop-in:", s.Name)
	line("# systemctl --user edit %s.service", s.base())
	line("[Unit]")
	line("Description=gpulease %s: %s", s.Name, s.About)
	line("Documentation=%s", documentation)
	if s.Every == 0 {
		line("# Money depends on it: never give up.")
		line("StartLimitIntervalSec=0")
	}
	line("")
	line("[Service]")
	if s.Every > 0 {
		line("Type=oneshot")
		line("TimeoutStartSec=%d", int(max(s.Every.Seconds(), 60)))
	} else {
		line("Type=exec")
		line("Restart=always")
		line("RestartSec=10")
		line("# A launch call under way is waited for.")
		line("TimeoutStopSec=150")
	}
	words := []string{systemdWord(s.Program, false)}
	for _, a := range s.Args {
		words = append(words, systemdWord(a, true))
	}
	line("ExecStart=%s", strings.Join(words, " "))
	line("WorkingDirectory=%s", percent(s.Home))
	for _, v := range s.Env {
		line("Environment=%s", systemdWord(v.Name+"="+v.Value, false))
	}
	if s.EnvFile != "" {
		line("EnvironmentFile=%s", percent(s.EnvFile))
	}
	b.WriteString(hardening)
	if s.Every == 0 {
		line("")
		line("[Install]")
		line("WantedBy=default.target")
	}
	return b.String()
}

// hardening is what works without privileges and for the commands that print a
// key: those may need the session's sockets, the home directory and programs that
// compile at run time.
const hardening = `# The API key is in its memory: no core dumps.
LimitCORE=0
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
MemoryMax=512M
`

func (s Service) timer() string {
	return fmt.Sprintf(`# Written by gpulease install %s. Your changes belong into a drop-in:
# systemctl --user edit %s.timer
[Unit]
Description=gpulease %s, every %s
Documentation=%s

[Timer]
OnStartupSec=1min
OnUnitActiveSec=%ds
AccuracySec=10s

[Install]
WantedBy=timers.target
`, s.Name, s.base(), s.Name, strings.TrimSuffix(s.Every.String(), "0s"), documentation, int(s.Every.Seconds()))
}

// systemdWord is one word of a unit's value. A dollar sign means something in a
// command's arguments only.
func systemdWord(text string, argument bool) string {
	out := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(percent(text))
	if argument {
		out = strings.ReplaceAll(out, "$", "$$")
	}
	if out == "" || strings.ContainsAny(out, " '\"\\;#") {
		return `"` + out + `"`
	}
	return out
}

func percent(text string) string { return strings.ReplaceAll(text, "%", "%%") }
