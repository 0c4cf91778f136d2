package policy

import (
	"encoding/json"
	"fmt"
)

// origin is how an [Source.Origin] is written down.
type origin struct {
	Path     string `json:"path"`
	Explicit bool   `json:"explicit,omitempty"`
	Sets     []Set  `json:"sets,omitempty"`
}

// Origin says where the policy comes from: the file and the rules that were given outside
// of it, not what they say now. Two sources with the same origin are the same policy. A
// file that was there has to be there for whoever reads the policy anew: a request that was
// made under it is not decided by the defaults.
func (s *Source) Origin() string {
	s.mu.Lock()
	explicit := s.Explicit || s.seen
	s.mu.Unlock()
	text, err := json.Marshal(origin{s.Path, explicit, s.Sets})
	if err != nil { // strings and a bool only
		panic(err)
	}
	return string(text)
}

// SourceFrom is the source with an origin, read anew: what the file says now.
func SourceFrom(text string) (*Source, error) {
	var o origin
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return nil, fmt.Errorf("read the policy's origin %q: %w", text, err)
	}
	return &Source{Path: o.Path, Explicit: o.Explicit, Sets: o.Sets}, nil
}
