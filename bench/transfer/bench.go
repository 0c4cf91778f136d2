package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/remote"
)

// bench is one delay.
type bench struct {
	settings
	ctx    context.Context
	m      *machine
	delay  time.Duration
	proxy  *delayed
	target remote.Target
	pool   *remote.Pool
	rivals *rivals
	serial int
}

func newBench(ctx context.Context, s settings, m *machine, delay time.Duration) (*bench, error) {
	b := &bench{settings: s, ctx: ctx, m: m, delay: delay, target: m.target, pool: remote.NewPool(remote.Config{})}
	var err error
	if delay > 0 {
		if b.proxy, err = startDelayed(m.target.Addr, delay); err != nil {
			return nil, err
		}
		b.target.Addr = b.proxy.listener.Addr().String()
	}
	if b.rivals, err = newRivals(m, b.target); err != nil {
		return nil, err
	}
	return b, b.pool.Check(ctx, b.target)
}

func (b *bench) close() {
	b.rivals.close()
	_ = b.pool.Close()
	if b.proxy != nil {
		b.proxy.stop()
	}
}

// entrant is one way of doing a thing. Before, if there is one, is not timed.
type entrant struct {
	name   string
	before func() error
	do     func() error
}

// race lets the entrants take turns, so that noise hits all alike, and prints medians and how they compare to the first.
func (b *bench) race(what string, runs int, entrants ...entrant) error {
	times := make([][]time.Duration, len(entrants))
	for range runs {
		for i, e := range entrants {
			if e.before != nil {
				if err := e.before(); err != nil {
					return fmt.Errorf("%s: %w", e.name, err)
				}
			}
			begun := time.Now()
			if err := e.do(); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			times[i] = append(times[i], time.Since(begun))
		}
	}
	first := median(times[0])
	for i, e := range entrants {
		m := median(times[i])
		fmt.Printf("%-22s %4d ms  %-22s %10.1f ms  (%.1f to %.1f)  %6.2fx\n", what, b.delay.Milliseconds(), e.name,
			ms(m), ms(slices.Min(times[i])), ms(slices.Max(times[i])), float64(m)/float64(first))
	}
	return nil
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (b *bench) commands() error {
	client, err := ssh.Dial("tcp", b.target.Addr, &ssh.ClientConfig{
		User: b.target.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.target.Signer)},
		HostKeyCallback: ssh.FixedHostKey(b.target.HostKey), HostKeyAlgorithms: []string{b.target.HostKey.Type()},
	})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	// What one leaves behind on the machine, such as the shell that gpulease makes ready for the next command, is not to
	// cost another.
	settle := func() error { time.Sleep(150 * time.Millisecond); return nil }
	return b.race("command", max(20, b.runs),
		entrant{"gpulease run", settle, func() error {
			b.serial++
			id := fmt.Sprintf("bench-%d-%d-%d", os.Getpid(), b.delay.Milliseconds(), b.serial)
			job, _, _, err := b.pool.Run(b.ctx, b.target, id, remote.Command{Shell: "true"}, 10*time.Second, 1000, 1000)
			if err == nil && !job.Over() {
				return fmt.Errorf("job %s is %s", id, job.State)
			}
			return err
		}},
		entrant{"bare exec, kept", settle, func() error {
			s, err := client.NewSession()
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			return s.Run("true")
		}},
		entrant{"ssh, ControlMaster", settle, func() error { return tool("ssh", "-F", b.rivals.config, "lease", "true") }},
		entrant{"ssh", settle, func() error { return tool("ssh", "-F", b.rivals.freshConfig, "lease", "true") }},
	)
}

// fresh names a directory that is not there yet, on either side.
func (b *bench) fresh(dir string) string {
	b.serial++
	return filepath.Join(dir, fmt.Sprintf("fresh-%d-%d", b.delay.Milliseconds(), b.serial))
}

// cleared makes before empty both sides of what came earlier.
func (b *bench) cleared(here string) func() error {
	return func() error {
		for _, pattern := range []string{filepath.Join(b.m.home, "fresh-*"), filepath.Join(here, "fresh-*")} {
			old, _ := filepath.Glob(pattern)
			for _, name := range old {
				if err := os.RemoveAll(name); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func (b *bench) file() error {
	src := filepath.Join(b.m.dir, "file")
	defer func() { _ = os.RemoveAll(src) }()
	if err := noiseFile(filepath.Join(src, "large"), b.size); err != nil {
		return err
	}
	return b.both(fmt.Sprintf("file %d MB", b.size/1_000_000), src, true)
}

func (b *bench) tree() error {
	src := filepath.Join(b.m.dir, "tree")
	defer func() { _ = os.RemoveAll(src) }()
	if err := plantTree(src, b.files); err != nil {
		return err
	}
	return b.both(fmt.Sprintf("tree of %d", b.files), src, b.scpTree)
}

// both races a directory up and down.
func (b *bench) both(what, src string, withScp bool) error {
	here := filepath.Join(b.m.dir, "down")
	if err := os.MkdirAll(here, 0o755); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(here) }()
	clear := b.cleared(here)
	up := []entrant{
		{"gpulease push", clear, func() error {
			_, err := b.pool.Push(b.ctx, b.target, src, filepath.Base(b.fresh("")), remote.PushOptions{})
			return err
		}},
		{"rsync -a", clear, func() error { return b.rivals.rsync(src+"/", "lease:"+b.fresh(b.m.home)+"/") }},
		{"scp -r", clear, func() error { return b.rivals.scp("-r", src, "lease:"+b.fresh(b.m.home)) }},
	}
	if !withScp { // which takes minutes for many files
		up = up[:2]
	}
	// What tar alone takes, on the same kept connection: it compares and checks nothing, and puts nothing in its place whole.
	up = append(up, entrant{"tar over ssh", clear, func() error {
		dst := b.fresh(b.m.home)
		return b.rivals.tarUp(src, dst)
	}})
	there := filepath.Join(b.m.home, "down")
	if err := tool("cp", "-a", src, there); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(there) }()
	down := []entrant{
		{"gpulease fetch", clear, func() error {
			sum, err := b.pool.Fetch(b.ctx, b.target, []string{"down"}, b.fresh(here), remote.FetchOptions{})
			if err == nil && !sum.Complete() {
				return fmt.Errorf("not complete: %v %v", sum.Missing, sum.Left)
			}
			return err
		}},
		{"rsync -a", clear, func() error { return b.rivals.rsync("lease:"+there+"/", b.fresh(here)+"/") }},
		{"scp -r", clear, func() error { return b.rivals.scp("-r", "lease:"+there, b.fresh(here)) }},
	}
	if !withScp {
		down = down[:2]
	}
	down = append(down, entrant{"tar over ssh", clear, func() error {
		dst := b.fresh(here)
		if err := os.Mkdir(dst, 0o755); err != nil {
			return err
		}
		return b.rivals.tarDown(there, dst)
	}})
	if err := b.race(what+" up", b.runs, up...); err != nil {
		return err
	}
	return b.race(what+" down", b.runs, down...)
}

func (b *bench) resync() error {
	src := filepath.Join(b.m.dir, "resync")
	defer func() { _ = os.RemoveAll(src) }()
	if err := plantTree(src, b.files); err != nil {
		return err
	}
	ours, theirs := filepath.Base(b.fresh("")), b.fresh(b.m.home)+"/"
	push := func() error {
		_, err := b.pool.Push(b.ctx, b.target, src, ours, remote.PushOptions{Delete: true})
		return err
	}
	rsync := func() error { return b.rivals.rsync("--delete", src+"/", "lease:"+theirs) }
	for _, first := range []func() error{push, rsync} {
		if err := first(); err != nil {
			return err
		}
	}
	// A file that was written within two seconds is read again by gpulease, since its times would not tell another edit, and
	// the push after that takes note. This is about what a person meets, who edits and syncs again and again.
	time.Sleep(3 * time.Second)
	if err := push(); err != nil {
		return err
	}
	if err := b.race("resync, unchanged", b.runs, entrant{"gpulease push", nil, push}, entrant{"rsync -a", nil, rsync}); err != nil {
		return err
	}
	n := 0
	edit := func() error {
		n++
		for i := range 10 {
			name := filepath.Join(src, treeName((n*997+i*31)%b.files))
			if err := os.WriteFile(name, []byte(fmt.Sprintf("edit %d of file %d\n", n, i)), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	if err := b.race("resync, 10 changed", b.runs, entrant{"gpulease push", edit, push}, entrant{"rsync -a", edit, rsync}); err != nil {
		return err
	}
	return b.quickEdits(src, ours, theirs, push, rsync)
}

// quickEdits changes a file again and again within a second and at the same size.
func (b *bench) quickEdits(src, ours, theirs string, push, rsync func() error) error {
	const edits = 10
	var missed [2]int
	name := treeName(1)
	second := time.Now().Truncate(time.Second)
	for i := range edits {
		text := fmt.Sprintf("%08d", rand.IntN(1e8))
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			return err
		}
		// However long the syncs take, it is an edit within the same second.
		edited := second.Add(time.Duration(i) * time.Millisecond)
		if err := os.Chtimes(filepath.Join(src, name), edited, edited); err != nil {
			return err
		}
		for k, sync := range []func() error{push, rsync} {
			if err := sync(); err != nil {
				return err
			}
			there := filepath.Join([]string{filepath.Join(b.m.home, ours), theirs}[k], name)
			if got, err := os.ReadFile(there); err != nil {
				return err
			} else if string(got) != text {
				missed[k]++
			}
		}
	}
	fmt.Printf("%-22s %4d ms  gpulease missed %d of %d, rsync %d\n", "edits of the same size", b.delay.Milliseconds(), missed[0], edits, missed[1])
	return nil
}

func noiseFile(name string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	source := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 1<<20)
	for left := size; left > 0; left -= int64(len(block)) {
		_, _ = source.Read(block)
		if _, err := f.Write(block[:min(left, int64(len(block)))]); err != nil {
			return err
		}
	}
	return nil
}

func treeName(i int) string { return fmt.Sprintf("pkg%d/mod%d/file%d.py", i%20, i%100, i) }

// plantTree makes files of about 6 KB of text that compresses like source code.
func plantTree(dir string, files int) error {
	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("def return import self model tensor optimizer loss batch train range len print for if else None True False loader config device step epoch")
	for i := range files {
		name := filepath.Join(dir, treeName(i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		var text strings.Builder
		for size := 1000 + random.IntN(10_000); text.Len() < size; {
			fmt.Fprintf(&text, "%s_%d ", words[random.IntN(len(words))], random.IntN(1000))
		}
		if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
