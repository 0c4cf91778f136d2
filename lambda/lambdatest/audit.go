package lambdatest

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

const (
	ownerID    = "3da5a70a57a7422ea8a7203f98b2198b"
	accountID  = "8e1f60c3ab5d4a7c9b2d17f0e4c3a596"
	apiKeyID   = "5b0c7e94d2f14c0fa1638d7e2b9f4a10" // of the one key, never the key itself
	eventsPage = 100
	maxEvents  = 10_000 // older ones are forgotten
)

type auditEvent struct {
	ID, Resource, Action, ObjectID string
	Time                           time.Time
	Details                        map[string]string
	Console                        bool // not by a request with an API key
}

// The caller of these holds mu.

func (s *Server) audit(now time.Time, resource, action string, i *instance) {
	s.auditObject(now, resource, action, i.ID, map[string]string{
		"instance_lrn": "lrn:cloud:instance:" + i.ID, "instance_type": i.Type.Name, "region": i.Region.Name})
}

func (s *Server) auditKey(now time.Time, action string, k *Key) {
	s.auditObject(now, "ssh_key", action, k.ID, map[string]string{"ssh_key_lrn": "lrn:cloud:ssh_key:" + k.ID})
}

func (s *Server) auditObject(now time.Time, resource, action, id string, details map[string]string) {
	if details == nil {
		details = map[string]string{}
	}
	if len(s.acct.Events) >= maxEvents {
		s.acct.Events = append([]auditEvent(nil), s.acct.Events[maxEvents/10:]...)
	}
	s.acct.Events = append(s.acct.Events, auditEvent{ID: s.newID(), Resource: resource, Action: action, ObjectID: id, Time: now, Details: details, Console: s.console})
}

// auditEvents lists what has changed in the account, oldest first, a page at a time.
func (s *Server) auditEvents(c *call) (any, *apiError) {
	query := c.r.URL.Query()
	bounds := map[string]time.Time{}
	for _, name := range []string{"start", "end"} {
		if !query.Has(name) {
			continue
		}
		t, err := time.Parse(time.RFC3339, query.Get(name))
		if err != nil {
			return nil, refusef(CodeInvalidParameters, "%s: Input should be a valid datetime", name)
		}
		bounds[name] = t
	}
	from := 0
	if token := query.Get("page_token"); token != "" {
		raw, err := base64.URLEncoding.DecodeString(token)
		n, err2 := strconv.Atoi(string(raw))
		if err != nil || err2 != nil || n < 0 {
			return nil, refusef(CodeInvalidParameters, "page_token: not a token of an earlier answer")
		}
		from = n
	}
	kind := strings.TrimPrefix(query.Get("resource_type"), "cloud.")
	var found []auditEvent
	for _, e := range s.acct.Events {
		after, bounded := bounds["start"]
		before, capped := bounds["end"]
		if bounded && e.Time.Before(after) || capped && e.Time.After(before) || kind != "" && e.Resource != kind {
			continue
		}
		found = append(found, e)
	}
	found = found[min(from, len(found)):]
	c.siblings["page_token"] = nil
	if len(found) > eventsPage {
		found = found[:eventsPage]
		c.siblings["page_token"] = base64.URLEncoding.EncodeToString([]byte(strconv.Itoa(from + eventsPage)))
	}
	out := []object{}
	for _, e := range found {
		out = append(out, e.object())
	}
	return out, nil
}

func (e auditEvent) object() object {
	var key any
	if !e.Console {
		key = "lrn:cloud:api_key:" + apiKeyID
	}
	return object{
		"service_name": "cloud", "resource_name": e.Resource, "action": e.Action, "catalog_version": "2025-09-06",
		"event_id": e.ID, "event_time": timestamp(e.Time), "actor_lrn": "lrn:cloud:identity:" + ownerID,
		"resource_lrns":      []string{"lrn:cloud:" + e.Resource + ":" + e.ObjectID},
		"resource_owner_lrn": "lrn:cloud:account:" + accountID, "request_api_key_lrn": key, "additional_details": e.Details,
	}
}
