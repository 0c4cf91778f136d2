//go:build unix

package lease_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
)

// guest is a directory that stands for the disk of a machine, and programs that stand
// for those which the script of user_data runs there.
type guest struct {
	t        *testing.T
	dir      string
	commands []string // runcmd
	fakes    map[string]string
}

// newGuest plants what user_data has, as cloud-init does, with its own copies of it.
func newGuest(t *testing.T, userData string) *guest {
	t.Helper()
	var doc struct {
		Files []struct {
			Path, Permissions, Content string
		} `yaml:"write_files"`
		Commands []string `yaml:"runcmd"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(userData), &doc))
	g := &guest{t: t, dir: t.TempDir(), fakes: map[string]string{"systemctl": "", "sleep": ""}}
	for _, f := range doc.Files {
		require.True(t, strings.HasPrefix(f.Permissions, "0") && strings.HasSuffix(f.Permissions, "00"), "root's alone")
		g.write(f.Path, g.local(f.Content))
	}
	for _, kept := range []string{"/var/lib/cloud/instances/i-1/user-data.txt", "/var/lib/cloud/instances/i-1/obj.pkl", "/run/cloud-init/combined-cloud-config.json"} {
		g.write(kept, "before "+userData+" after")
	}
	g.write("/etc/os-release", "ID=ubuntu\nVERSION_CODENAME=noble\n")
	g.write("/usr/share/keyrings/.there", "")
	g.write("/etc/apt/sources.list.d/.there", "")
	for _, c := range doc.Commands {
		g.commands = append(g.commands, g.local(c))
	}
	return g
}

// local has the machine's paths lead into the directory.
func (g *guest) local(text string) string {
	for _, top := range []string{"/run/", "/var/lib/", "/etc/", "/usr/share/"} {
		text = strings.ReplaceAll(text, top, g.dir+top)
	}
	return text
}

func (g *guest) write(path, text string) {
	g.t.Helper()
	path = filepath.Join(g.dir, path)
	require.NoError(g.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(g.t, os.WriteFile(path, []byte(text), 0o600))
}

// boot runs the commands. Each fake notes how it was called. These tests run one after the
// other: a program that was written while another one was being started could be busy.
func (g *guest) boot() (log string, err error) {
	g.t.Helper()
	bin := filepath.Join(g.t.TempDir(), "bin")
	require.NoError(g.t, os.Mkdir(bin, 0o755))
	for name, text := range g.fakes {
		require.NoError(g.t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho \""+name+" $*\" >>"+g.dir+".log\n"+text), 0o755))
	}
	// Nothing else is to be found there, least of all what would install or join something here.
	for _, tool := range []string{"chmod", "env", "grep", "rm", "sh", "touch"} {
		path, err := exec.LookPath(tool)
		require.NoError(g.t, err)
		require.NoError(g.t, os.Symlink(path, filepath.Join(bin, tool)))
	}
	python := "#!/bin/sh\nPATH='" + os.Getenv("PATH") + "' exec python3 \"$@\"\n" // it may be a script that needs more
	require.NoError(g.t, os.WriteFile(filepath.Join(bin, "python3"), []byte(python), 0o755))
	g.t.Cleanup(func() { _ = os.Remove(g.dir + ".log") })
	cmd := exec.CommandContext(g.t.Context(), "/bin/sh", "-c", strings.Join(g.commands, "\n"))
	cmd.Env = []string{"PATH=" + bin}
	out, err := cmd.CombinedOutput()
	require.NotContains(g.t, string(out), plantedKey)
	text, _ := os.ReadFile(g.dir + ".log")
	return string(text), err
}

// holds are the files in which a text is.
func (g *guest) holds(text string) (files []string) {
	g.t.Helper()
	require.NoError(g.t, filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			files = append(files, strings.TrimPrefix(path, g.dir))
		}
		return err
	}))
	return files
}

func userDataToJoin(t *testing.T) (string, lease.Lease) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "no python3: CI must install it")
		t.Skip("no python3, which every machine with cloud-init has")
	}
	k, _ := networked(t)
	l := k.get(k.launch(lease.LaunchRequest{}).ID)
	return k.sim.UserData(l.InstanceID), l
}

const fakeTailscale = `case "$1 $2" in "up --auth-key=file:"*) grep -qx ` + plantedKey + ` "${2#--auth-key=file:}" || exit 9 ;; esac
`

func TestScriptJoinsTheTailnetAndWipesTheKey(t *testing.T) {
	data, l := userDataToJoin(t)
	g := newGuest(t, data)
	g.fakes["tailscale"] = fakeTailscale
	require.Len(t, g.holds(plantedKey), 4)
	log, err := g.boot()
	require.NoError(t, err)
	require.Contains(t, log, "tailscale up --auth-key=file:"+g.dir+"/run/gpulease/tailscale-authkey --hostname="+l.KeyName+" --advertise-tags=tag:gpulease,tag:gpu --accept-dns=false --timeout=3m\n")
	require.NotContains(t, log, plantedKey, "no process has the key in its arguments")
	require.NotContains(t, log, "apt-get", "it was installed already")
	require.Empty(t, g.holds(plantedKey))
	require.NoDirExists(t, filepath.Join(g.dir, "run/gpulease"))

	kept, err := os.ReadFile(filepath.Join(g.dir, "var/lib/cloud/instances/i-1/obj.pkl"))
	require.NoError(t, err)
	require.Equal(t, "before "+strings.ReplaceAll(data, plantedKey, strings.Repeat("x", len(plantedKey)))+" after", string(kept), "nothing else is changed, nor any length")

	_, err = g.boot()
	require.NoError(t, err, "a machine on which nothing was planted, such as a simulated one, does nothing")
}

func TestScriptWipesTheKeyWhereItCannotJoin(t *testing.T) {
	data, _ := userDataToJoin(t)
	for name, fakes := range map[string]map[string]string{
		"refused key":       {"tailscale": "exit 1\n"},
		"no way to install": {"curl": "exit 22\n", "apt-get": "exit 100\n"},
	} {
		g := newGuest(t, data)
		for program, text := range fakes {
			g.fakes[program] = text
		}
		_, err := g.boot()
		require.Error(t, err, name)
		require.Empty(t, g.holds(plantedKey), name)
	}
}

func TestScriptInstallsFromTheSignedRepository(t *testing.T) {
	data, _ := userDataToJoin(t)
	g := newGuest(t, data)
	// The second try is the one that works, as when another apt-get holds the lock.
	g.fakes["curl"] = `while [ "$1" != -o ]; do shift; done; echo ring >"$2"` + "\n"
	g.fakes["apt-get"] = `if [ ! -e ` + g.dir + `.busy ]; then touch ` + g.dir + `.busy; exit 100; fi
[ "$1" != install ] || { printf '#!/bin/sh\necho "tailscale $*" >>` + g.dir + `.log\n' >"${0%/*}/tailscale"; chmod 755 "${0%/*}/tailscale"; }
`
	t.Cleanup(func() { _ = os.Remove(g.dir + ".busy") })
	log, err := g.boot()
	require.NoError(t, err, "%s", log)
	require.Contains(t, log, " https://pkgs.tailscale.com/stable/ubuntu/noble.noarmor.gpg\n")
	require.Regexp(t, `(?s)apt-get update.*apt-get update.*apt-get install .* tailscale\n.*systemctl enable --now tailscaled\ntailscale up `, log)
	list, err := os.ReadFile(filepath.Join(g.dir, "etc/apt/sources.list.d/tailscale.list"))
	require.NoError(t, err)
	require.Equal(t, "deb [signed-by="+g.dir+"/usr/share/keyrings/tailscale-archive-keyring.gpg] https://pkgs.tailscale.com/stable/ubuntu noble main\n", string(list))
}
