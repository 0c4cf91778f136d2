package lambda

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// AuditEvent is one line of the account's audit log. An LRN is Lambda's name for a thing, such as
// "lrn:cloud:instance:0920582c7ff041399e34823a0be62549".
type AuditEvent struct {
	ServiceName       string          `json:"service_name"`  // such as "cloud"
	ResourceName      string          `json:"resource_name"` // such as "instance"
	Action            string          `json:"action"`        // such as "created"
	CatalogVersion    string          `json:"catalog_version"`
	EventID           string          `json:"event_id"`
	EventTime         time.Time       `json:"event_time"`          // zero when the service's text is not a time
	ActorLRN          string          `json:"actor_lrn,omitempty"` // "" when the service sends none
	ResourceLRNs      []string        `json:"resource_lrns"`
	ResourceOwnerLRN  string          `json:"resource_owner_lrn,omitempty"`
	RequestAPIKeyLRN  string          `json:"request_api_key_lrn,omitempty"`
	AdditionalDetails json.RawMessage `json:"additional_details,omitempty"` // a JSON object; its keys depend on the event
}

// UnmarshalJSON takes a time without a zone too.
func (a *AuditEvent) UnmarshalJSON(b []byte) error {
	type plain AuditEvent
	in := struct {
		*plain
		EventTime looseTime `json:"event_time"`
	}{plain: (*plain)(a)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	a.EventTime = in.EventTime.t
	return nil
}

// AuditQuery narrows the audit log. The zero value is all of it.
type AuditQuery struct {
	Start, End   time.Time // both inclusive; zero is no bound
	ResourceType string    // such as "cloud.instance"
}

func (q AuditQuery) values(token string) url.Values {
	v := url.Values{}
	if !q.Start.IsZero() {
		v.Set("start", q.Start.UTC().Format(time.RFC3339Nano))
	}
	if !q.End.IsZero() {
		v.Set("end", q.End.UTC().Format(time.RFC3339Nano))
	}
	if q.ResourceType != "" {
		v.Set("resource_type", q.ResourceType)
	}
	if token != "" {
		v.Set("page_token", token)
	}
	return v
}

// AuditPage fetches one page of the audit log, in the service's order. The first has the token ""; next is the token of
// the following one, "" after the last.
func (c *Client) AuditPage(ctx context.Context, q AuditQuery, token string) (events []AuditEvent, next string, err error) {
	k := call{op: OpAuditEvents, method: http.MethodGet, path: "/audit-events", query: q.values(token), safe: true}
	err = c.do(ctx, k, func(env envelope) (err error) {
		events = nil
		if err = decodeInto(env.Data, '[', &events); err != nil {
			return err
		}
		next, err = env.next()
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return events, next, nil
}

// AuditEvents walks through the audit log, a page at a time. An error ends the walk and comes with an empty event. A log whose
// pages repeat is an error.
func (c *Client) AuditEvents(ctx context.Context, q AuditQuery) iter.Seq2[AuditEvent, error] {
	return func(yield func(AuditEvent, error) bool) {
		tokens := map[string]bool{}
		for token := ""; ; {
			events, next, err := c.AuditPage(ctx, q, token)
			if err == nil && tokens[next] {
				err = c.fail(call{op: OpAuditEvents, method: http.MethodGet}, &Error{Message: "the log repeats a page", Retry: RetryLater})
			}
			if err != nil {
				yield(AuditEvent{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			tokens[next], token = true, next
		}
	}
}
