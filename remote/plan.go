package remote

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// errMoving says that files came or went on the machine between two looks at them.
var errMoving = fmt.Errorf("%w: files changed while they were looked at", ErrMachine)

// plan is what one push has to do.
type plan struct {
	send   []*item
	size   int64     // of the files in send
	before []string  // removals that make room, see record.removal
	after  []string  // removals that were asked for
	next   manifest  // what the machine will know as ours
	known  *manifest // what it knows now
	gone   int       // of known, how many are to be deleted because they are no longer here
}

// guard refuses a push that would delete most of what is there: more often than not the wrong directory was named, or
// a checkout is half done.
func (p *plan) guard(most int) error {
	limit := most
	switch {
	case most < 0:
		return nil
	case most == 0:
		limit = max(freeDeletions, len(*p.known)/2)
	}
	if p.gone <= limit {
		return nil
	}
	return &MassDeletionError{Gone: p.gone, Known: len(*p.known), Most: limit}
}

// idle reports whether the machine has all already.
func (p *plan) idle() bool {
	return len(p.send) == 0 && len(p.before) == 0 && len(p.after) == 0 && maps.Equal(p.next, *p.known)
}

// pathsToProbe are all items, and all directories above them.
func pathsToProbe(items []item) []string {
	seen := map[string]bool{}
	for _, it := range items {
		for name := it.path; name != "." && !seen[name]; name = path.Dir(name) {
			seen[name] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// makePlan compares the local items with what is on the machine. It reads local files only where the machine has one
// of that name.
func makePlan(local *hashes, root *os.Root, items []item, there present, remove bool) (*plan, error) {
	p := &plan{next: manifest{}, known: &there.old}
	inWay := map[string]bool{}
	room := func(name string) error {
		// What an earlier push put there may go; anything else may not.
		was, mine := there.old[name]
		switch {
		case mine && was.kind != kindDir && there.kinds[name] != 'd':
			inWay[name] = true
		case there.kinds[name] == 'd' && mine && was.kind == kindDir:
			inWay[name] = true
		case there.kinds[name] == 'd' && remove && there.old.below(name):
			for other := range there.old {
				if strings.HasPrefix(other, name+"/") {
					inWay[other] = true
				}
			}
		default:
			return fmt.Errorf("%w: %s", ErrConflict, name)
		}
		return nil
	}
	above := map[string]bool{}
	in := &folder{root: root}
	defer in.close()
	for i := range items {
		it := &items[i]
		for dir := path.Dir(it.path); dir != "." && !above[dir]; dir = path.Dir(dir) {
			above[dir] = true
			if kind := there.kinds[dir]; kind != 0 && kind != '-' && kind != 'd' {
				if err := room(dir); err != nil {
					return nil, err
				}
			}
		}
		same, err := it.sameAs(local, in, there)
		if err != nil {
			return nil, err
		}
		if same {
			p.next[it.path] = it.record()
			continue
		}
		if kind := there.kinds[it.path]; kind == 'o' || kind == 'd' || it.kind == kindDir && kind != 0 && kind != '-' {
			if err := room(it.path); err != nil {
				return nil, err
			}
		}
		p.send = append(p.send, it)
		p.size += it.size
	}
	p.before = removals(there.old, inWay, nil)
	for i := range items {
		above[items[i].path] = true // and the directories above them already are
	}
	gone := map[string]bool{}
	for name, was := range there.old {
		switch {
		case above[name] || inWay[name]:
		case remove:
			gone[name] = true
		default:
			p.next[name] = was
		}
	}
	p.after, p.gone = removals(there.old, gone, above), len(gone)+len(inWay)
	return p, nil
}

// removals tells how to remove names, and the directories above them that would be left empty, but for those in keep.
// What is deeper comes first.
func removals(old manifest, names, keep map[string]bool) []string {
	all := maps.Clone(names)
	for name := range names {
		for dir := path.Dir(name); dir != "." && !keep[dir] && !all[dir]; dir = path.Dir(dir) {
			all[dir] = true
		}
	}
	var list []string
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(all))) {
		if names[name] {
			list = append(list, old[name].removal(name))
		} else {
			list = append(list, "r ./"+name)
		}
	}
	return list
}

func (it *item) record() record { return record{kind: it.kind, mode: it.mode, hash: it.hash} }

// sameAs reports whether the machine has the item as it is here, and sets its hash if that had to be known.
func (it *item) sameAs(local *hashes, in *folder, there present) (bool, error) {
	kind, was := there.kinds[it.path], there.old[it.path]
	switch it.kind {
	case kindDir:
		return kind == 'd', nil
	case kindLink:
		it.hash = hashOf(it.target)
		return kind == 'l' && was.kind == kindLink && was.hash == it.hash, nil
	}
	it.hash = ""
	if kind != 'f' && kind != 'x' {
		return false, nil
	}
	if (kind == 'x') != (it.mode&0o100 != 0) || was.kind == kindFile && was.mode != it.mode {
		return false, nil
	}
	if it.hash = local.get(it.info); it.hash == "" {
		var err error
		if it.hash, err = local.of(in, it.path); err != nil {
			return false, nil // the sending of it will meet the same, and say so
		}
	}
	return it.hash == there.hashes[it.path], nil
}
