package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// present is what files.sh found on the machine: a letter for each path, and for a readable file its hash.
type present struct {
	kinds  map[string]byte
	hashes map[string]string
	old    manifest
	how    string // the best compression that it can undo
	many   bool   // it can take several archives at once
	ranged bool   // and parts of a file

	stats map[string]string // what stat says of a file
	now   int64             // the machine's clock, unix seconds
	read  map[string]bool   // files that had to be read for their hash
}

// mostStats bounds what the machine says of the files themselves: of half a million.
const mostStats = 64 << 20

// probe asks what the machine has of the items, which may not be known yet, and calls meanwhile when it has begun to ask.
func (j *pushing) probe(ctx context.Context, n *conn, meanwhile func()) (present, error) {
	paths := sync.OnceValue(func() []string {
		<-j.listed
		return pathsToProbe(j.items)
	})
	list := func() []byte {
		names := paths()
		if j.listErr != nil {
			return nil // not even an empty list, with which the machine would make the directory
		}
		var list bytes.Buffer
		for _, name := range names {
			list.WriteString("./" + name + "\x00")
		}
		return append([]byte{}, list.Bytes()...) // an empty one is not nil
	}
	mkdir := "yes"
	if j.options.DryRun {
		mkdir = "no"
	}
	r, err := n.callAnd(ctx, request{
		script: filesScript,
		args:   []string{"probe", j.dst, mkdir},
		later:  list,
		data:   mostManifest + mostStats,
	}, meanwhile)
	if err != nil {
		return present{}, err
	}
	return parsePresent(r, paths())
}

// parsePresent reads the reply of "files.sh probe" for these paths.
func parsePresent(r reply, paths []string) (present, error) {
	p := present{
		kinds: map[string]byte{}, hashes: map[string]string{}, stats: map[string]string{}, read: map[string]bool{},
		how: r.get("how"), many: r.get("many") == "yes", ranged: r.get("ranged") == "yes",
	}
	parts, err := r.parts(4)
	if err != nil {
		return p, err
	}
	if p.old, err = decodeManifest(parts[1]); err != nil {
		return p, err
	}
	if r.get("style") == "stat" {
		return p, p.readStats(r, parts[0], parts[2], parts[3])
	}
	return p, p.readLetters(paths, parts[0], parts[2])
}

// parts cuts the data of a reply as its "part" lines say.
func (r reply) parts(count int) ([][]byte, error) {
	var parts [][]byte
	data := r.data
	for _, f := range r.fields {
		if f.key != "part" {
			continue
		}
		size, err := strconv.ParseInt(f.value, 10, 64)
		if err != nil || size < 0 || size > int64(len(data)) {
			return nil, fmt.Errorf("%w: part of %q bytes", ErrMachine, f.value)
		}
		parts, data = append(parts, data[:size]), data[size:]
	}
	if len(parts) != count {
		return nil, fmt.Errorf("%w: %d parts instead of %d", ErrMachine, len(parts), count)
	}
	return parts, nil
}

func (p *present) readLetters(paths []string, kinds, sums []byte) error {
	if len(kinds) == 0 {
		return nil // no such directory, or nothing in it
	}
	if len(kinds) != len(paths) {
		return fmt.Errorf("%w: %d answers for %d paths", ErrMachine, len(kinds), len(paths))
	}
	hashes := strings.Fields(string(sums))
	for i, name := range paths {
		p.kinds[name] = kinds[i]
		if kinds[i] != 'f' && kinds[i] != 'x' {
			continue
		}
		if len(hashes) == 0 || len(hashes[0]) != 64 {
			return errMoving
		}
		p.hashes[name], hashes = hashes[0], hashes[1:]
	}
	if len(hashes) != 0 {
		return errMoving
	}
	return nil
}

func (p *present) readStats(r reply, stats, sums, closed []byte) error {
	now, err := r.numbers("now", 1)
	if err != nil {
		return err
	}
	p.now = now[0]
	for _, line := range splitList(sums) {
		hash, name, found := strings.Cut(line, "  ./")
		if !found || len(hash) != 64 {
			return fmt.Errorf("%w: hash %q", ErrMachine, line)
		}
		p.hashes[name] = hash
		p.read[name] = true
	}
	unreadable := map[string]bool{}
	for _, name := range splitList(closed) {
		unreadable[strings.TrimPrefix(name, "./")] = true
	}
	for _, line := range splitList(stats) {
		words := strings.SplitN(line, " ", 6)
		mode, err := strconv.ParseUint(words[0], 16, 32)
		if err != nil || len(words) != 6 || !strings.HasPrefix(words[5], "./") {
			return fmt.Errorf("%w: stat %q", ErrMachine, line)
		}
		name := words[5][len("./"):]
		switch mode & 0xf000 {
		case 0x4000:
			p.kinds[name] = 'd'
		case 0xa000:
			p.kinds[name] = 'l'
		case 0x8000:
			p.readFile(name, line, mode, unreadable[name])
		default:
			p.kinds[name] = 'o'
		}
	}
	return nil
}

func (p *present) readFile(name, stat string, mode uint64, unreadable bool) {
	if unreadable {
		p.kinds[name] = 'u'
		return
	}
	p.kinds[name] = 'f'
	if mode&0o100 != 0 {
		p.kinds[name] = 'x'
	}
	p.stats[name] = stat
	if p.hashes[name] == "" {
		// Not read, because stat says what it said when the file was as the manifest has it. Where the manifest has no
		// hash, since a push broke off, there is none.
		p.hashes[name] = p.old[name].hash
	}
}

// settled is how old a file's change time must be, in seconds, for it to tell the next change apart.
const settled = 2

// seen is what stat says of the files that are as the manifest has them, and how many files and bytes of them were read in vain.
func (p *present) seen() (list []string, files int, size int64) {
	for name, stat := range p.stats {
		if was := p.old[name]; was.kind != kindFile || was.hash == "" || was.hash != p.hashes[name] {
			continue
		}
		words := strings.SplitN(stat, " ", 6)
		changed, _, _ := strings.Cut(words[4], ".")
		if at, err := strconv.ParseInt(changed, 10, 64); err != nil || at+settled >= p.now {
			continue
		}
		list = append(list, stat)
		if p.read[name] {
			length, _ := strconv.ParseInt(words[2], 10, 64)
			files, size = files+1, size+length
		}
	}
	return list, files, size
}

// So many files, or so many bytes, must have been read in vain for the machine to take note of them: that takes a round trip.
const (
	worthFiles = 64
	worthBytes = 8 << 20
)

// remember tells the machine what it need not read again.
func (j *pushing) remember(n *conn, there present) error {
	list, files, size := there.seen()
	if files < worthFiles && size < worthBytes {
		return nil
	}
	_, err := n.call(j.ctx, request{
		script: filesScript, args: []string{"seen", j.dst},
		stdin: func() io.Reader { return bytes.NewReader(nulList(list)) },
	})
	return err
}
