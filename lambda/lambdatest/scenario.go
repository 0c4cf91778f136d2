package lambdatest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/goccy/go-yaml"
)

// Scenario is a course of events: faults, and changes of the market over time.
type Scenario struct {
	Faults []Fault `yaml:"faults,omitempty"`
	// Steps change the market, each at its time after the start of the scenario.
	Steps []Step `yaml:"steps,omitempty"`
}

// Step is one change of the market.
type Step struct {
	At time.Duration `yaml:"at,omitempty"`
	// Capacity is by type, then region: a number, or -1 for no limit.
	Capacity map[string]map[string]int `yaml:"capacity,omitempty"`
	// PriceCents is by type, in cents an hour.
	PriceCents map[string]int64 `yaml:"price_cents,omitempty"`
}

type pendingStep struct {
	Step
	due time.Time
}

// LoadScenario reads a scenario from a YAML file. A word that it does not know
// is an error with its line.
func LoadScenario(path string) (*Scenario, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	defer f.Close()
	sc := &Scenario{}
	if err := decodeYAML(f, sc); err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", path, err)
	}
	return sc, nil
}

// decodeYAML reads YAML, and so JSON, strictly.
func decodeYAML(r io.Reader, into any) error {
	data, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return err
	}
	err = yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(into)
	if errors.Is(err, io.EOF) { // an empty document
		return nil
	}
	return err
}

// Apply begins a scenario now. Nothing is changed if any part of it is wrong.
func (s *Server) Apply(sc *Scenario) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apply(sc)
}

func (s *Server) apply(sc *Scenario) error {
	for n, f := range sc.Faults {
		if err := f.check(); err != nil {
			return fmt.Errorf("scenario: fault %d: %w", n+1, err)
		}
	}
	for n, st := range sc.Steps {
		if err := s.checkStep(st); err != nil {
			return fmt.Errorf("scenario: step %d: %w", n+1, err)
		}
	}
	now := s.clock.now()
	for _, f := range sc.Faults {
		s.addFault(f, now)
	}
	for _, st := range sc.Steps {
		s.steps = append(s.steps, pendingStep{st, now.Add(st.At)})
	}
	s.runSteps(now)
	return nil
}

func (s *Server) checkStep(st Step) error {
	for typ, regions := range st.Capacity {
		for region := range regions {
			if _, ok := s.acct.Catalog.region(region); !ok || s.acct.Catalog.typ(typ) == nil {
				return fmt.Errorf("capacity of %q in %q: no such type or region", typ, region)
			}
		}
	}
	for typ, cents := range st.PriceCents {
		if s.acct.Catalog.typ(typ) == nil || cents <= 0 {
			return fmt.Errorf("price of %q: %d cents: no such type, or not a price", typ, cents)
		}
	}
	return nil
}

// runSteps does the steps that are due, in the order of their times. The caller
// holds mu.
func (s *Server) runSteps(now time.Time) {
	for {
		first := -1
		for n, st := range s.steps {
			if reached(st.due, now) && (first < 0 || st.due.Before(s.steps[first].due)) {
				first = n
			}
		}
		if first < 0 {
			return
		}
		st := s.steps[first]
		s.steps = append(s.steps[:first:first], s.steps[first+1:]...)
		for typ, regions := range st.Capacity {
			for region, n := range regions {
				_ = s.setCapacity(typ, region, n) // checked before
			}
		}
		for typ, cents := range st.PriceCents {
			_ = s.setPrice(typ, cents) // checked before
		}
	}
}
