package lambdatest

import (
	"encoding/base64"
	"strconv"
	"time"
)

// instance finds one by id, gone ones too. The caller holds mu.
func (s *Server) instance(id string) *instance {
	for _, i := range s.acct.Instances {
		if i.ID == id {
			return i
		}
	}
	return nil
}

// known finds an instance that the API admits to.
func (s *Server) known(id string, now time.Time) *instance {
	i := s.instance(id)
	if i == nil || i.gone(now) || now.Before(i.VisibleAt) {
		return nil
	}
	return i
}

// listInstances lists booting, terminating and for a while terminated instances
// too, newest first. Without page_size all of them come at once.
func (s *Server) listInstances(c *call) (any, *apiError) {
	query := c.r.URL.Query()
	var found []*instance
	for n := len(s.acct.Instances) - 1; n >= 0; n-- {
		i := s.acct.Instances[n]
		if i.gone(c.now) || c.now.Before(i.VisibleAt) || c.now.Before(i.ListedAt) || c.omits(i.ID, i.Name) {
			continue
		}
		if query.Get("cluster_id") != "" {
			continue // nothing here belongs to a cluster
		}
		found = append(found, i)
	}
	if s.cfg.Newer {
		c.siblings["page_token"] = nil
		if query.Has("page_size") || query.Has("page_token") {
			var e *apiError
			if found, e = c.page(found); e != nil {
				return nil, e
			}
		}
	}
	out := []object{}
	for _, i := range found {
		out = append(out, s.instanceJSON(i, c.now))
	}
	return out, nil
}

// page cuts a list to the page that was asked for. The token names the last
// instance of the page before, so that new ones do not shift it.
func (c *call) page(found []*instance) ([]*instance, *apiError) {
	query := c.r.URL.Query()
	size := 100
	if query.Has("page_size") {
		n, err := strconv.Atoi(query.Get("page_size"))
		if err != nil || n < 1 {
			return nil, refusef(CodeInvalidParameters, "page_size: Input should be an integer above 0")
		}
		size = n
	}
	if token := query.Get("page_token"); token != "" {
		last, err := base64.URLEncoding.DecodeString(token)
		at := -1
		for n, i := range found {
			if i.ID == string(last) {
				at = n
			}
		}
		if err != nil || at < 0 {
			return nil, refusef(CodeInvalidParameters, "page_token: not a token of an earlier answer")
		}
		found = found[at+1:]
	}
	if len(found) > size {
		found = found[:size]
		c.siblings["page_token"] = base64.URLEncoding.EncodeToString([]byte(found[size-1].ID))
	}
	return found, nil
}

func (c *call) omits(id, name string) bool {
	for _, f := range c.faults {
		if f.Omit != "" && (fits(f.Omit, id) || fits(f.Omit, name)) {
			return true
		}
	}
	return false
}

func (s *Server) getInstance(c *call) (any, *apiError) {
	i := s.known(c.id, c.now)
	if i == nil {
		return nil, noInstance()
	}
	return s.instanceJSON(i, c.now), nil
}

func (s *Server) renameInstance(c *call) (any, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	name, set := f.str("name", limits{max: 64}), f.has("name")
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	i := s.known(c.id, c.now)
	if i == nil {
		return nil, noInstance()
	}
	if set {
		i.Name = name
	}
	return s.instanceJSON(i, c.now), nil
}

// chosen reads the instance_ids of a request. One that does not exist fails the
// whole call.
func (s *Server) chosen(c *call) ([]*instance, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	f.need("instance_ids")
	ids := f.strs("instance_ids")
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	var out []*instance
	seen := map[string]bool{}
	for _, id := range ids {
		i := s.known(id, c.now)
		if i == nil {
			return nil, noInstance()
		}
		if !seen[id] {
			out = append(out, i)
		}
		seen[id] = true
	}
	return out, nil
}

func (s *Server) terminate(c *call) (any, *apiError) {
	chosen, e := s.chosen(c)
	if e != nil {
		return nil, e
	}
	lasts, ignore := s.cfg.TerminateTime, false
	for _, f := range c.faults {
		ignore = ignore || f.Ignore
		if f.Stuck > 0 {
			lasts = f.Stuck
		}
	}
	for _, i := range chosen {
		if s.cfg.TerminateOnce && !i.running(c.now) {
			return nil, refuse(CodeUnknown)
		}
	}
	out := []object{}
	for _, i := range chosen {
		if ignore {
			continue
		}
		s.end(i, c.now, lasts)
		out = append(out, s.instanceJSON(i, c.now))
	}
	return object{"terminated_instances": out}, nil
}

// end is the terminate call for one instance. An instance that has ended by
// itself, or is ending, stays as it is.
func (s *Server) end(i *instance, now time.Time, lasts time.Duration) {
	if !i.running(now) {
		return
	}
	i.StopCalledAt = now
	i.TerminatedAt = now.Add(lasts)
	i.GoneAt = i.TerminatedAt.Add(s.cfg.Linger)
	s.audit(now, "instance", "terminated", i)
	s.cfg.Logf("instance %s (%s): terminated by a call", i.ID, i.Name)
}

func (s *Server) restart(c *call) (any, *apiError) {
	chosen, e := s.chosen(c)
	if e != nil {
		return nil, e
	}
	for _, i := range chosen {
		st := i.status(c.now)
		if st != Active && st != Unhealthy || c.now.Before(i.BusyUntil) {
			return nil, refuse(CodeConflict)
		}
	}
	out := []object{}
	for _, i := range chosen {
		i.RestartedAt, i.BusyUntil = c.now, c.now.Add(s.cfg.BootTime/3)
		s.audit(c.now, "instance", "restarted", i)
		out = append(out, s.instanceJSON(i, c.now))
	}
	return object{"restarted_instances": out}, nil
}

// object reads the request's body. It is JSON whatever the content type says:
// Lambda's own examples post it as a form.
func (s *Server) object(c *call) (*fields, *apiError) { return parseObject(c.body, s.cfg.Nulls) }

// finish reports what nobody asked for and says what is wrong with the rest.
func (s *Server) finish(c *call, f *fields, tolerated ...string) *apiError {
	undocumented := append(f.unknown(), tolerated...)
	for _, name := range undocumented {
		s.find(Finding{Time: c.now, Op: c.op.id, Field: name, Problem: "the document has no such field"})
		if s.cfg.Strict {
			*f.problems = append(*f.problems, name+": Extra inputs are not permitted")
		}
	}
	return f.err()
}
