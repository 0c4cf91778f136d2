package install

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

var services = map[string]Service{
	"keeper": {
		Name: "keeper", About: "ends GPU leases at their deadlines", Program: "/usr/local/bin/gpulease", Args: []string{"keeper", "--stay"}, Home: "/home/ada",
		Env: []Variable{{"PATH", "/usr/bin:/bin"}, {"GPULEASE_STATE_DIR", "/home/ada/.local/state/gpulease"}, {"LAMBDA_API_KEY_FILE", "/home/ada/.config/gpulease/key"}},
	},
	"reap": {
		Name: "reap", About: "ends machines that are past their hard stop", Program: "/usr/local/bin/gpulease", Args: []string{"reap"}, Every: 5 * time.Minute,
		Home: "/home/ada", Env: []Variable{{"PATH", "/usr/bin:/bin"}}, EnvFile: "/home/ada/.config/gpulease/env",
	},
	"awkward": {
		Name: "keeper", About: "ends GPU leases at their deadlines", Program: "/opt/my tools/100%/gpulease", Args: []string{"keeper", "--stay", "--log", "/tmp/$HOME/a b"}, Home: "/home/ada l%h",
		Env: []Variable{{"LAMBDA_API_KEY_COMMAND", `op read "op://a b/key" | sed 's/%s\n$//' # <&>; $X`}},
		Log: "/home/ada/log & more",
	},
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "go test ./cmd/gpulease/install -update writes the golden files anew")
}

func TestTextsAreAsTheyWere(t *testing.T) {
	t.Parallel()
	for name, s := range services {
		units, err := s.Systemd("")
		require.NoError(t, err)
		for _, u := range units {
			golden(t, name+filepath.Ext(u.Path), u.Text)
		}
		agent, err := s.Launchd("")
		require.NoError(t, err)
		golden(t, name+".plist", agent.Text)
	}
}

// systemd itself reads the units as they are meant.
func TestSystemdTakesTheUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	for name, s := range services {
		dir := t.TempDir()
		s.Home = filepath.Join(dir, "home %h")
		s.Program = filepath.Join(dir, "100% my", "gpulease")
		require.NoError(t, os.MkdirAll(s.Home, 0o700))
		require.NoError(t, os.MkdirAll(filepath.Dir(s.Program), 0o700))
		require.NoError(t, os.WriteFile(s.Program, []byte("#!/bin/sh\n"), 0o700))
		units, err := s.Systemd(dir)
		require.NoError(t, err)
		args := []string{"verify", "--user", "--man=no"}
		for _, u := range units {
			_, err := u.Write()
			require.NoError(t, err)
			args = append(args, u.Path)
		}
		verify := func() ([]byte, error) {
			cmd := exec.Command(analyze, args...)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
			return cmd.CombinedOutput()
		}
		out, err := verify()
		require.NoError(t, err, "%s: %s", name, out)
		for line := range strings.SplitSeq(string(out), "\n") {
			require.False(t, strings.Contains(line, "gpulease-"), "%s: %s", name, out)
		}

		// What cannot be right is found: the check checks something.
		bad := strings.Replace(units[0].Text, "\nUMask=", "\nUMaks=", 1)
		require.NoError(t, os.WriteFile(units[0].Path, []byte(bad), 0o644))
		out, _ = verify()
		require.Contains(t, string(out), "UMaks")
	}
}

func TestLaunchdAgentIsXMLThatSaysWhatWasMeant(t *testing.T) {
	t.Parallel()
	s := services["awkward"]
	agent, err := s.Launchd("/agents")
	require.NoError(t, err)
	require.Equal(t, "/agents/ai.gpulease.keeper.plist", agent.Path)
	var texts []string
	for d := xml.NewDecoder(strings.NewReader(agent.Text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, string(text))
		}
	}
	for _, want := range append([]string{s.Program, s.Env[0].Value, s.Log}, s.Args...) {
		require.Contains(t, texts, want)
	}
}

func TestCronLine(t *testing.T) {
	t.Parallel()
	s := Service{Program: "/opt/my tools/gpulease", Args: []string{"reap"}, Every: 5 * time.Minute, Env: []Variable{{"LAMBDA_API_KEY_COMMAND", "date +%s; it's"}}}
	require.Equal(t, `*/5 * * * * LAMBDA_API_KEY_COMMAND='date +\%s; it'\''s' '/opt/my tools/gpulease' reap`, s.Cron())
	s.Every = time.Hour
	require.True(t, strings.HasPrefix(s.Cron(), "0 * * * * "))
	for _, every := range []time.Duration{90 * time.Second, 7 * time.Minute, 2 * time.Hour, 30 * time.Second} {
		s.Every = every
		require.Empty(t, s.Cron(), every)
	}
}

func TestControlCharactersAreRefused(t *testing.T) {
	t.Parallel()
	s := services["keeper"]
	s.Env = []Variable{{"LAMBDA_API_KEY_FILE", "/a\nExecStartPre=/bin/evil"}}
	_, err := s.Systemd("")
	require.ErrorIs(t, err, errControl)
	_, err = s.Launchd("")
	require.ErrorIs(t, err, errControl)
}

func TestWriteAndRemove(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there")
	units, err := services["keeper"].Systemd(dir)
	require.NoError(t, err)
	f := units[0]
	content := func(path string) string {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(b)
	}
	write := func(want Outcome) {
		t.Helper()
		o, err := f.Write()
		require.NoError(t, err)
		require.Equal(t, want, o)
		require.Equal(t, f.Text, content(f.Path))
	}
	write(Outcome{Changed: true})
	write(Outcome{})

	// A newer text replaces our own older one; what somebody changed is kept.
	s := services["keeper"]
	s.Program = "/elsewhere/gpulease"
	units, err = s.Systemd(dir)
	require.NoError(t, err)
	f = units[0]
	write(Outcome{Changed: true})
	changed := strings.Replace(f.Text, "RestartSec=10", "RestartSec=1", 1)
	for _, b := range []string{".bak", ".bak1"} {
		require.NoError(t, os.WriteFile(f.Path, []byte(changed), 0o644))
		require.ErrorIs(t, f.Remove(), ErrChanged)
		write(Outcome{Changed: true, Backup: f.Path + b})
		require.Equal(t, changed, content(f.Path+b))
	}
	require.NoError(t, os.Remove(f.Path))
	require.NoError(t, os.Symlink("/dev/null", f.Path)) // as systemctl mask does
	require.ErrorIs(t, f.Remove(), ErrChanged)
	write(Outcome{Changed: true, Backup: f.Path + ".bak2"})

	require.NoError(t, f.Remove())
	require.NoFileExists(t, f.Path)
	require.NoError(t, f.Remove())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 3, "the backups")
}
