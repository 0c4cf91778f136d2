package tools

import (
	"bytes"
	"regexp"
	"slices"
	"sync"

	"github.com/gpulease/gpulease/lease"
)

// secrets are texts that an agent is not shown again: they would stay in its
// transcript. It is a net for accidents, not a wall: whoever runs commands on the
// machine can print them in any disguise.
type secrets struct {
	fixed func() []string // those of this program; may be nil

	mu      sync.Mutex
	ofLease map[lease.ID][]string // values of variables that calls have set
	leases  []lease.ID            // the oldest first
}

const (
	shortestSecret  = 6 // "true" or "8080" in a variable's value is no secret
	shortestPart    = 4 // of a secret that the edge of a piece cuts in two
	secretsOfALease = 64
	leasesKept      = 64
)

// secretName is what a variable with a secret in it is called.
var secretName = regexp.MustCompile(`(?i)(^|_)(API|PRIVATE|ACCESS)?_?(KEY|KEYS|PAT|PWD|PASS|PASSWD|PASSPHRASE|AUTH|CREDS?)(_|$)|TOKEN|SECRET|PASSWORD|CREDENTIAL|APIKEY`)

// remember takes the values of variables whose names look secret.
func (s *secrets) remember(id lease.ID, env map[string]string) {
	for name, value := range env {
		if !secretName.MatchString(name) || len(value) < shortestSecret {
			continue
		}
		s.mu.Lock()
		if s.ofLease == nil {
			s.ofLease = map[lease.ID][]string{}
		}
		kept, known := s.ofLease[id]
		if !known {
			s.leases = append(s.leases, id)
			if len(s.leases) > leasesKept {
				delete(s.ofLease, s.leases[0])
				s.leases = s.leases[1:]
			}
		}
		if !slices.Contains(kept, value) {
			kept = append(kept, value)
		}
		s.ofLease[id] = kept[max(0, len(kept)-secretsOfALease):]
		s.mu.Unlock()
	}
}

func (s *secrets) of(id lease.ID) []string {
	var all []string
	if s.fixed != nil {
		all = s.fixed()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(all, s.ofLease[id])
}

// mask covers the secrets in a piece of a stream, each byte by one, so that
// offsets stay right. Where the piece is cut, the part of a secret that is in it
// is covered too.
func (s *secrets) mask(id lease.ID, piece []byte) []byte {
	var out []byte
	cover := func(from, to int) {
		if out == nil {
			out = bytes.Clone(piece)
		}
		copy(out[from:to], "[redacted]")
		for i := from + len("[redacted]"); i < to; i++ {
			out[i] = '*'
		}
	}
	for _, text := range s.of(id) {
		secret := []byte(text)
		if len(secret) < shortestSecret {
			continue
		}
		for at := 0; ; {
			i := bytes.Index(piece[at:], secret)
			if i < 0 {
				break
			}
			cover(at+i, at+i+len(secret))
			at += i + len(secret)
		}
		for n := min(len(secret)-1, len(piece)); n >= shortestPart; n-- {
			if bytes.HasSuffix(piece, secret[:n]) {
				cover(len(piece)-n, len(piece))
				break
			}
		}
		for n := min(len(secret)-1, len(piece)); n >= shortestPart; n-- {
			if bytes.HasPrefix(piece, secret[len(secret)-n:]) {
				cover(0, n)
				break
			}
		}
	}
	if out == nil {
		return piece
	}
	return out
}
