package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrChanged says that a file is not, or is no more, what we wrote.
var ErrChanged = errors.New("it is not as gpulease wrote it, so it is left in place")

const signature = "gpulease-sum: "

// sign adds, behind the last comment at the top, a line with the sum of all the
// others: so we know later on whether somebody has changed the file.
func sign(text, open, shut string) string {
	sum := sha256.Sum256([]byte(text))
	mark := open + signature + hex.EncodeToString(sum[:]) + shut + "\n"
	lines := strings.SplitAfter(text, "\n")
	at := 0
	for i, l := range lines {
		if strings.HasPrefix(l, open) {
			at = i + 1
		} else if at > 0 {
			break
		}
	}
	return strings.Join(lines[:at], "") + mark + strings.Join(lines[at:], "")
}

// unchanged reports whether a text is as sign made it.
func unchanged(text string) bool {
	var rest strings.Builder
	sum := ""
	for l := range strings.SplitAfterSeq(text, "\n") {
		if _, after, ok := strings.Cut(l, signature); ok && sum == "" {
			sum, _, _ = strings.Cut(strings.TrimSpace(after), " ")
			continue
		}
		rest.WriteString(l)
	}
	is := sha256.Sum256([]byte(rest.String()))
	return sum != "" && sum == hex.EncodeToString(is[:])
}

// Outcome is what Write did.
type Outcome struct {
	Changed bool   // false: it was so before
	Backup  string // where what was there before has gone; "" for nowhere
}

// Write puts a file in its place. A file that is there and is not ours, or was
// changed since, is moved to a name of its own first. Written again, it changes nothing.
func (f File) Write() (o Outcome, err error) {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return o, fmt.Errorf("write %s: %w", f.Path, err)
	}
	ours, err := f.here()
	if err == nil && ours == f.Text {
		return o, nil
	}
	if errors.Is(err, ErrChanged) {
		if o.Backup, err = backup(f.Path); err != nil {
			return o, fmt.Errorf("keep the %s that is there: %w", f.Path, err)
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	o.Changed = true
	return o, replace(f.Path, f.Text)
}

// Ours reports whether the file is there and as we wrote it, whichever version of
// us that was. It fails with ErrChanged if it is there and is not.
func (f File) Ours() (bool, error) {
	_, err := f.here()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Remove removes the file if it is ours. One that is not there is no error.
func (f File) Remove() error {
	if ours, err := f.Ours(); !ours {
		return err
	}
	return os.Remove(f.Path)
}

// here reads what is in the file's place. It fails with ErrChanged where that is
// not ours, for instance a link.
func (f File) here() (string, error) {
	info, err := os.Lstat(f.Path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: %w", f.Path, ErrChanged)
	}
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return "", err
	}
	if !unchanged(string(b)) {
		return "", fmt.Errorf("%s: %w", f.Path, ErrChanged)
	}
	return string(b), nil
}

// backup moves a file to the first free name.
func backup(path string) (string, error) {
	for n := range 1000 {
		to := path + ".bak"
		if n > 0 {
			to = fmt.Sprintf("%s.bak%d", path, n)
		}
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return to, os.Rename(path, to)
		}
	}
	return "", errors.New("there are a thousand backups")
}

func replace(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
