package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/install"
)

const systemCall = 30 * time.Second // one call of systemctl or launchctl

// systemd installs or removes user units.
func (i *installation) systemd(ctx context.Context, service install.Service) error {
	config := i.s.env["XDG_CONFIG_HOME"]
	if !filepath.IsAbs(config) {
		config = filepath.Join(service.Home, ".config")
	}
	service.EnvFile = i.envFile // absolute by now
	units, err := service.Systemd(filepath.Join(config, "systemd", "user"))
	if err != nil {
		return usageError(err)
	}
	reload := []string{"systemctl", "--user", "daemon-reload"}
	if i.remove {
		return i.uninstall(ctx, units, []string{"systemctl", "--user", "disable", "--now", service.Unit()}, reload)
	}
	changed, err := i.write(units)
	if err != nil {
		return err
	}
	steps := [][]string{reload, {"systemctl", "--user", "enable", "--now", service.Unit()}}
	if changed { // one of an older text may run
		steps = [][]string{reload, {"systemctl", "--user", "enable", service.Unit()}, {"systemctl", "--user", "restart", service.Unit()}}
	}
	if err := i.steps(ctx, service.Name+" is installed and running as "+service.Unit(), steps...); err != nil {
		return err
	}
	fmt.Fprint(i.out, "It runs while you are logged in. To keep it from boot on and after you have logged out: loginctl enable-linger\n")
	i.cron(service)
	return nil
}

// launchd installs or removes an agent.
func (i *installation) launchd(ctx context.Context, service install.Service) error {
	if service.Every == 0 {
		service.Args = append(service.Args, "--log", i.s.keeperLog()) // nobody else would keep it small
	}
	agent, err := service.Launchd(filepath.Join(service.Home, "Library", "LaunchAgents"))
	if err != nil {
		return usageError(err)
	}
	domain := "gui/" + strconv.Itoa(os.Getuid())
	unload := []string{"launchctl", "bootout", domain + "/" + service.Label()}
	if i.remove {
		return i.uninstall(ctx, []install.File{agent}, unload)
	}
	changed, err := i.write([]install.File{agent})
	if err != nil {
		return err
	}
	if changed && !i.dryRun {
		_ = i.call(ctx, unload) // it may not be loaded
	}
	if err := i.steps(ctx, service.Name+" is installed and running as "+service.Label(), []string{"launchctl", "bootstrap", domain, agent.Path}); err != nil {
		return err
	}
	i.cron(service)
	return nil
}

// write writes the files, or shows them.
func (i *installation) write(files []install.File) (changed bool, err error) {
	for _, f := range files {
		if i.dryRun {
			fmt.Fprintf(i.out, "would write %s:\n\n%s\n", f.Path, f.Text)
			continue
		}
		o, err := f.Write()
		if err != nil {
			return changed, err
		}
		changed = changed || o.Changed
		switch {
		case o.Backup != "":
			fmt.Fprintf(i.out, "wrote %s; what was there is now %s\n", f.Path, o.Backup)
		case o.Changed:
			fmt.Fprintf(i.out, "wrote %s\n", f.Path)
		default:
			fmt.Fprintf(i.out, "%s is as it should be\n", f.Path)
		}
	}
	return changed, nil
}

// uninstall ends a service and removes its files, unless somebody has changed
// them: then they are not ours to remove, and it is not ours to end.
func (i *installation) uninstall(ctx context.Context, files []install.File, end []string, then ...[]string) error {
	there := 0
	for _, f := range files {
		is, err := f.Ours()
		if err != nil {
			return err
		}
		if is {
			there++
		}
	}
	if there == 0 {
		fmt.Fprintf(i.out, "%s was not there\n", files[0].Path)
		return nil
	}
	if err := i.steps(ctx, "", end); err != nil {
		return err
	}
	for _, f := range files {
		if i.dryRun {
			fmt.Fprintf(i.out, "would remove %s\n", f.Path)
			continue
		}
		if err := f.Remove(); err != nil {
			return err
		}
		fmt.Fprintf(i.out, "removed %s\n", f.Path)
	}
	if len(then) > 0 && !i.dryRun {
		return i.steps(ctx, "", then...)
	}
	return nil
}

// steps runs commands of the system in turn. Where one does not work here, it
// says what is left to do: that is no failure of the installation. done is said
// after the last one.
func (i *installation) steps(ctx context.Context, done string, steps ...[]string) error {
	for n, step := range steps {
		why := ""
		if !i.dryRun {
			if err := i.call(ctx, step); err != nil {
				why = err.Error()
			} else {
				continue
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if why == "" {
			fmt.Fprintln(i.out, "would run:")
		} else {
			fmt.Fprintf(i.out, "NOT DONE YET (%s). Run by hand:\n", why)
		}
		for _, s := range steps[n:] {
			fmt.Fprintln(i.out, "  "+strings.Join(s, " "))
		}
		return nil
	}
	if done != "" {
		fmt.Fprintln(i.out, done)
	}
	return nil
}

// call runs one command of the system.
func (i *installation) call(ctx context.Context, step []string) error {
	path := i.find(step[0])
	if path == "" {
		return fmt.Errorf("there is no %s here", step[0])
	}
	ctx, cancel := context.WithTimeout(ctx, systemCall)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, step[1:]...)
	cmd.WaitDelay = time.Second
	for name, value := range i.s.env {
		if name != "LAMBDA_API_KEY" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(step, " "), err, printable(strings.TrimSpace(string(out[:min(len(out), 300)]))))
	}
	return nil
}

func (i *installation) cron(service install.Service) {
	if line := service.Cron(); line != "" {
		fmt.Fprintf(i.out, "Where there is cron only, this line of crontab -e does the same:\n%s\n", line)
	}
}
