package lambdatest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Instance is how the simulator sees an instance: more than the API shows.
type Instance struct {
	ID                string    `json:"id"`
	Name              string    `json:"name"`
	Type              string    `json:"type"`
	Region            string    `json:"region"`
	IP                string    `json:"ip"`
	Hostname          string    `json:"hostname,omitempty"`
	Status            Status    `json:"status"` // Gone for one that is a 404
	Tags              []Tag     `json:"tags,omitempty"`
	KeyNames          []string  `json:"ssh_key_names"`
	Image             string    `json:"image"` // its family
	PriceCentsPerHour int64     `json:"price_cents_per_hour"`
	LaunchedAt        time.Time `json:"launched_at"`
	FirstHealthy      time.Time `json:"first_healthy,omitzero"`
	StopCalledAt      time.Time `json:"stop_called_at,omitzero"` // the terminate call
	TerminatedAt      time.Time `json:"terminated_at,omitzero"`  // when nothing runs any more
	Rulesets          []string  `json:"firewall_rulesets,omitempty"`
	Filesystems       []string  `json:"filesystems,omitempty"` // ids
}

// Request is one request that was made to the API. Nothing secret is in it: of
// the body only the names of the fields, of the path not the query.
type Request struct {
	Time     time.Time `json:"time"`
	Method   string    `json:"method"`
	Path     string    `json:"path"`
	Op       string    `json:"op,omitempty"` // "" for none
	Status   int       `json:"status"`       // 0 if no whole answer was given
	BodyKeys []string  `json:"body_keys,omitempty"`
	Faults   []string  `json:"faults,omitempty"` // ids of the faults that fired
}

// Finding is something in a request that the document does not know.
type Finding struct {
	Time    time.Time `json:"time"`
	Op      string    `json:"op"`
	Field   string    `json:"field"`
	Problem string    `json:"problem"`
}

// maxLog bounds the logs: the older half is dropped when one is full.
const maxLog = 20_000

func (s *Server) record(r Request) {
	s.cfg.Logf("%s %s -> %d %v", r.Method, r.Path, r.Status, r.Faults)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) >= maxLog {
		s.requests = slices.Clone(s.requests[maxLog/2:])
	}
	s.requests = append(s.requests, r)
}

// find notes a finding. The caller holds mu.
func (s *Server) find(f Finding) {
	s.cfg.Logf("%s: %s: %s", f.Op, f.Field, f.Problem)
	if len(s.findings) >= maxLog {
		s.findings = slices.Clone(s.findings[maxLog/2:])
	}
	s.findings = append(s.findings, f)
}

// Instances are all instances ever launched, ended ones too, oldest first.
func (s *Server) Instances() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.now()
	out := make([]Instance, 0, len(s.acct.Instances))
	for _, i := range s.acct.Instances {
		out = append(out, i.snapshot(now))
	}
	return out
}

// Instance finds one by id or name; of several with the name the newest.
func (s *Server) Instance(idOrName string) (Instance, bool) {
	all := s.Instances()
	for n := len(all) - 1; n >= 0; n-- {
		if all[n].ID == idOrName || all[n].Name == idOrName {
			return all[n], true
		}
	}
	return Instance{}, false
}

// Running are the instances that run now, oldest first: what must be none at the
// end of a test.
func (s *Server) Running() []Instance {
	return slices.DeleteFunc(s.Instances(), func(i Instance) bool {
		return i.Status != Booting && i.Status != Active && i.Status != Unhealthy
	})
}

func (i *instance) snapshot(now time.Time) Instance {
	out := Instance{ID: i.ID, Name: i.Name, Type: i.Type.Name, Region: i.Region.Name, IP: i.IP, Hostname: i.Hostname,
		Status: i.status(now), Tags: slices.Clone(i.Tags), KeyNames: slices.Clone(i.KeyNames), Image: i.ImageFamily,
		PriceCentsPerHour: i.Type.PriceCentsPerHour, LaunchedAt: i.LaunchedAt, FirstHealthy: i.firstHealthy(now),
		StopCalledAt: i.StopCalledAt, Rulesets: slices.Clone(i.Rulesets), Filesystems: slices.Clone(i.FilesystemIDs)}
	switch {
	case reached(i.TerminatedAt, now):
		out.TerminatedAt = i.TerminatedAt
	case i.TerminatedAt.IsZero() && reached(i.DiesAt, now) && i.DiesAs != Unhealthy:
		out.TerminatedAt = i.DiesAt
	}
	return out
}

// UserData is what an instance was launched with, until it is gone. It is not
// part of Instance because it may hold private keys.
func (s *Server) UserData(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.instance(id); i != nil {
		return i.UserData
	}
	return ""
}

// Bill is what Lambda would ask for now.
func (s *Server) Bill() Bill {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := Bill{At: s.clock.now()}
	for _, i := range s.acct.Instances {
		l := i.bill(b.At, s.cfg.UnhealthyFree)
		b.Lines = append(b.Lines, l)
		b.Total += l.MicroDollars
	}
	return b
}

// Of is an instance's line, by id or name.
func (b Bill) Of(idOrName string) (BillLine, bool) {
	for n := len(b.Lines) - 1; n >= 0; n-- {
		if b.Lines[n].InstanceID == idOrName || b.Lines[n].Name == idOrName {
			return b.Lines[n], true
		}
	}
	return BillLine{}, false
}

// LaunchCount is how many instances were ever made.
func (s *Server) LaunchCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acct.Instances)
}

// Requests are the requests so far, oldest first; of very many the newest.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Findings are what requests have said that the document does not know.
func (s *Server) Findings() []Finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.findings)
}

// Keys are the account's SSH keys, oldest first.
func (s *Server) Keys() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Key{}
	for _, k := range s.acct.Keys {
		out = append(out, *k)
	}
	return out
}

// SetCapacity says how many more instances of a type can be launched in a
// region: Unlimited, a number, or 0 for none, which also unlists the region.
func (s *Server) SetCapacity(typ, region string, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setCapacity(typ, region, n)
}

func (s *Server) setCapacity(typ, region string, n int) error {
	t := s.acct.Catalog.typ(typ)
	if _, ok := s.acct.Catalog.region(region); t == nil || !ok {
		return fmt.Errorf("set capacity of %q in %q: no such type or region", typ, region)
	}
	t.Capacity[region] = max(n, Unlimited)
	return nil
}

// SetPrice changes what a type costs, for launches from now on.
func (s *Server) SetPrice(typ string, centsPerHour int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setPrice(typ, centsPerHour)
}

func (s *Server) setPrice(typ string, centsPerHour int64) error {
	t := s.acct.Catalog.typ(typ)
	if t == nil || centsPerHour <= 0 {
		return fmt.Errorf("set price of %q to %d cents: no such type, or not a price", typ, centsPerHour)
	}
	t.PriceCentsPerHour = centsPerHour
	return nil
}

// Order is a launch outside the API: by somebody else in the account.
type Order struct {
	Name, Type, Region, Key string // Key is a name; made if the account has it not
	Tags                    []Tag
}

// Launch makes an instance as if somebody had clicked in the console: no request
// is logged and no fault fires.
func (s *Server) Launch(o Order) (id string, err error) {
	s.mu.Lock()
	now := s.clock.now()
	if o.Key == "" {
		o.Key = "console"
	}
	if s.key(o.Key) == nil {
		public := ssh.MarshalAuthorizedKey(newHostKey().PublicKey()) // nobody has the private half
		s.acct.Keys = append(s.acct.Keys, &Key{ID: s.newID(), Name: o.Key, PublicKey: strings.TrimSpace(string(public))})
	}
	s.console = true
	i, e := s.start(now, launchOrder{region: o.Region, typ: o.Type, name: o.Name, keys: []string{o.Key}, tags: o.Tags}, nil)
	s.console = false
	s.save()
	s.mu.Unlock()
	if e != nil {
		return "", e
	}
	s.wakeHosts()
	return i.ID, nil
}

// Terminate ends an instance as if somebody had clicked in the console.
func (s *Server) Terminate(id string) error {
	s.mu.Lock()
	now := s.clock.now()
	i := s.known(id, now)
	if i != nil {
		s.console = true
		s.end(i, now, s.cfg.TerminateTime)
		s.console = false
		s.save()
	}
	s.mu.Unlock()
	s.wakeHosts()
	if i == nil {
		return fmt.Errorf("terminate %s: no such instance", id)
	}
	return nil
}

// Become makes an instance Unhealthy, Terminated or Preempted now, by itself.
func (s *Server) Become(id string, as Status) error {
	if as != Unhealthy && as != Terminated && as != Preempted {
		return fmt.Errorf("instance %s cannot become %q", id, as)
	}
	s.mu.Lock()
	now := s.clock.now()
	i := s.instance(id)
	ok := i != nil && i.running(now)
	if ok {
		s.dies(i, now, as)
		s.save()
	}
	s.mu.Unlock()
	s.wakeHosts()
	if !ok {
		return fmt.Errorf("instance %s does not run", id)
	}
	return nil
}
