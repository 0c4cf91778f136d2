// Package printout keeps what another program prints, up to a size: one that prints for
// ever must not take the memory of a process that guards leases.
package printout

import (
	"bytes"
	"errors"
)

// ErrTooMuch ends a program that prints more than is kept.
var ErrTooMuch = errors.New("it printed too much")

// Printout is a program's standard output or error.
type Printout struct {
	Most int  // bytes that are kept
	Over bool // there was more

	kept bytes.Buffer
}

// Write keeps what there is room for. It fails where there is none, which closes the
// pipe: the program ends at its next word.
func (p *Printout) Write(b []byte) (int, error) {
	room := p.Most - p.kept.Len()
	if len(b) <= room {
		return p.kept.Write(b)
	}
	p.Over = true
	_, _ = p.kept.Write(b[:room])
	return room, ErrTooMuch
}

// Bytes are those that were kept.
func (p *Printout) Bytes() []byte { return p.kept.Bytes() }

// String is the same as text.
func (p *Printout) String() string { return p.kept.String() }
