package remote

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
)

// held is a call of files.sh that gets list as its input and ends when the caller does. What reads large files for their
// hashes would not learn of that from its output for long, and sshd counts its session until it has ended. Call release when
// the call has ended.
func held(args []string, list []byte) (_ []string, stdin io.Reader, release func()) {
	read, write := io.Pipe()
	return append([]string{"held", strconv.Itoa(len(list))}, args...), io.MultiReader(bytes.NewReader(list), read), func() { _ = write.Close() }
}

// heldLater is held for a list that may not be known yet. The call ends when there is none: list is nil then.
func heldLater(args []string, list func() []byte) (_ []string, stdin io.Reader, release func()) {
	read, write := io.Pipe()
	return heldUntold(args), io.MultiReader(&later{get: func() []byte {
		if text := list(); text != nil {
			return counted(text)
		}
		return nil
	}}, read), func() { _ = write.Close() }
}

// heldUntold is held where the input says itself how long it is, see counted.
func heldUntold(args []string) []string { return append([]string{"held", "-"}, args...) }

func counted(list []byte) []byte { return append(fmt.Appendln(nil, len(list)), list...) }

// later is what is to be read, once it is known.
type later struct {
	get   func() []byte // waits for it
	known io.Reader
}

func (l *later) Read(p []byte) (int, error) {
	if l.known == nil {
		l.known = bytes.NewReader(l.get())
	}
	return l.known.Read(p)
}
