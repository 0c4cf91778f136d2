package lambdatest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/goccy/go-yaml"
)

// adminPath is where the simulator answers for itself rather than for Lambda. It
// needs no key: there is nothing to protect but a simulation. Requests that a
// web page sends are refused all the same.
const adminPath = "/_sim"

// FaultState is a fault and what it has done so far.
type FaultState struct {
	Fault `yaml:",inline"`
	Seen  int `yaml:"seen"` // calls that it fitted
	Hits  int `yaml:"hits"` // calls that it fired for
}

// Faults are the faults that are in force or still to come.
func (s *Server) Faults() []FaultState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []FaultState{}
	for _, f := range s.faults {
		out = append(out, FaultState{f.Fault, f.seen, f.hits})
	}
	return out
}

func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	show := func(path string, f func() any) {
		mux.HandleFunc("GET "+adminPath+path, func(w http.ResponseWriter, _ *http.Request) { adminAnswer(w, f(), nil) })
	}
	show("", s.summary)
	show("/instances", func() any { return s.Instances() })
	show("/bill", func() any { return s.Bill() })
	show("/requests", func() any { return s.Requests() })
	show("/findings", func() any { return s.Findings() })
	show("/keys", func() any { return s.Keys() })
	show("/faults", func() any { return s.Faults() })
	change := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("POST "+adminPath+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			adminAnswer(w, v, err)
		})
	}
	change("/faults", s.adminInject)
	change("/scenario", s.adminScenario)
	change("/advance", s.adminAdvance)
	change("/capacity", s.adminCapacity)
	change("/price", s.adminPrice)
	change("/instances/{id}/become", s.adminBecome)
	change("/instances/{id}/terminate", func(r *http.Request) (any, error) { return object{}, s.Terminate(r.PathValue("id")) })
	change("/instances/{id}/host-key", func(r *http.Request) (any, error) { return object{}, s.ChangeHostKey(r.PathValue("id")) })
	mux.HandleFunc("DELETE "+adminPath+"/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.Remove()
		adminAnswer(w, object{}, nil)
	})
	mux.HandleFunc("DELETE "+adminPath+"/faults/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.Remove(r.PathValue("id"))
		adminAnswer(w, object{}, nil)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Gpulease-Sim", "1")
		if site := r.Header.Get("Sec-Fetch-Site"); r.Header.Get("Origin") != "" || site != "" && site != "none" {
			http.Error(w, "the simulator's own API is not for web pages", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) summary() any {
	counts := map[Status]int{}
	for _, i := range s.Instances() {
		counts[i.Status]++
	}
	return object{
		"simulator": "gpulease sim: this is not Lambda Cloud, nothing here costs money",
		"now":       s.Now(), "api_url": s.URL(), "ssh_port": s.SSHPort(), "instances": counts,
		"total_micro_dollars": s.Bill().Total, "faults": len(s.Faults()), "findings": len(s.Findings()),
	}
}

func adminAnswer(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		status, v = http.StatusBadRequest, object{"error": err.Error()}
	}
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

func (s *Server) adminInject(r *http.Request) (any, error) {
	var f Fault
	if err := decodeYAML(r.Body, &f); err != nil {
		return nil, err
	}
	id, err := s.inject(f)
	return object{"id": id}, err
}

func (s *Server) adminScenario(r *http.Request) (any, error) {
	var sc Scenario
	if err := decodeYAML(r.Body, &sc); err != nil {
		return nil, err
	}
	return object{}, s.Apply(&sc)
}

func (s *Server) adminAdvance(r *http.Request) (any, error) {
	var b struct {
		By time.Duration `yaml:"by"`
	}
	if err := decodeYAML(r.Body, &b); err != nil {
		return nil, err
	}
	if b.By <= 0 {
		return nil, fmt.Errorf("by %v: the clock goes forward only", b.By)
	}
	s.Advance(b.By)
	return object{"now": s.Now()}, nil
}

func (s *Server) adminCapacity(r *http.Request) (any, error) {
	var b struct {
		Type   string `yaml:"type"`
		Region string `yaml:"region"`
		Count  *int   `yaml:"count"`
	}
	if err := decodeYAML(r.Body, &b); err != nil {
		return nil, err
	}
	if b.Count == nil {
		return nil, fmt.Errorf("count is missing: a number, or -1 for no limit")
	}
	return object{}, s.SetCapacity(b.Type, b.Region, *b.Count)
}

func (s *Server) adminPrice(r *http.Request) (any, error) {
	var b struct {
		Type  string `yaml:"type"`
		Cents int64  `yaml:"cents_per_hour"`
	}
	if err := decodeYAML(r.Body, &b); err != nil {
		return nil, err
	}
	return object{}, s.SetPrice(b.Type, b.Cents)
}

func (s *Server) adminBecome(r *http.Request) (any, error) {
	var b struct {
		Status Status `yaml:"status"`
	}
	if err := decodeYAML(r.Body, &b); err != nil {
		return nil, err
	}
	return object{}, s.Become(r.PathValue("id"), b.Status)
}

// MarshalJSON writes a fault as a scenario file does: in snake_case, without the
// zero fields, durations as text.
func (f FaultState) MarshalJSON() ([]byte, error) {
	text, err := yaml.Marshal(f)
	if err != nil {
		return nil, err
	}
	return yaml.YAMLToJSON(text)
}
