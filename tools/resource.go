package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/policy"
	"github.com/gpulease/gpulease/remote"
)

// Resource is something that a client reads by its address, for its user rather than
// its model. It changes nothing and costs nothing.
type Resource struct {
	URI         string // or an RFC 6570 template of URIs, of {names} only
	Name        string
	Title       string // for people
	Description string
	MIMEType    string

	// Tool is what is asked for it, so that nothing is seen here that is not seen there.
	// Arguments makes its arguments of the template's values; Field is the part of its
	// answer that is the content, "" for the whole. A resource without a tool has Read.
	Tool      string
	Arguments func(values map[string]string) (map[string]any, error)
	Field     string
	Read      func(ctx context.Context) (string, error)

	// Version is equal as long as nothing has changed that is worth a word to a
	// subscriber: the cost of a lease grows all the time.
	Version func(ctx context.Context, values map[string]string) (string, error)
}

// Listed is a resource of a template that there is now.
type Listed struct{ URI, Name, Title, MIMEType string }

// Policies is asked for the policy in force.
type Policies interface {
	PolicyFor(ctx context.Context) (*policy.Policy, error)
}

const (
	plainText = "text/plain"
	jsonText  = "application/json"

	outputShown = 40000 // bytes, the most of read_output
	listedMost  = 50
)

// Resources are those of gpulease. They are read as whoever asks: principals see their
// own leases only.
func Resources(l Leases, p Policies) []Resource {
	return []Resource{
		{
			URI: "policy://current", Name: "policy", Title: "Policy in force", MIMEType: plainText,
			Description: "Every rule with its value and where it is set.",
			Read: func(ctx context.Context) (string, error) {
				now, err := p.PolicyFor(ctx)
				if err != nil {
					return "", err
				}
				var b strings.Builder
				err = now.Show(&b)
				return b.String(), err
			},
			Version: func(ctx context.Context, _ map[string]string) (string, error) {
				now, err := p.PolicyFor(ctx)
				if err != nil {
					return "", err
				}
				return now.Hash(), nil
			},
		},
		{
			URI: "spend://today", Name: "spend", Title: "Spending today", MIMEType: jsonText,
			Description: "What was spent and reserved today, what is left under each cap, what burns per hour.",
			Read: func(ctx context.Context) (string, error) {
				s, err := l.Spend(ctx, "")
				if err != nil {
					return "", err
				}
				raw, err := json.Marshal(todayOf(s))
				return string(raw), err
			},
			Version: func(ctx context.Context, _ map[string]string) (string, error) {
				s, err := l.Spend(ctx, "")
				if err != nil {
					return "", err
				}
				t := s.Usage.Principal
				return fmt.Sprint(t.Day, t.Leases, t.BurnPerHour, len(s.Strangers)), nil
			},
		},
		{
			URI: "lease://{lease_id}", Name: "lease", Title: "A lease", MIMEType: jsonText,
			Description: "State, cost, deadline and jobs of a lease, as get_lease shows them.",
			Tool:        "get_lease",
			Arguments: func(v map[string]string) (map[string]any, error) {
				return map[string]any{"lease_id": v["lease_id"]}, nil
			},
			Version: func(ctx context.Context, v map[string]string) (string, error) {
				now, err := l.Get(ctx, lease.ID(v["lease_id"]))
				if err != nil {
					return "", err
				}
				return fmt.Sprint(now.State, now.Reason, now.Detail, now.Deadline, now.Cost), nil
			},
		},
		{
			URI: "lease://{lease_id}/jobs/{job_id}/{stream}", Name: "output", Title: "A job's output", MIMEType: plainText,
			Description: "The end of what a job has written to stdout or stderr, up to 40,000 bytes.",
			Tool:        "read_output", Field: "data", Arguments: outputArguments,
			Version: func(ctx context.Context, v map[string]string) (string, error) {
				if _, err := outputArguments(v); err != nil {
					return "", err
				}
				j, err := l.Job(ctx, v["job_id"], 0)
				if err != nil {
					return "", err
				}
				return fmt.Sprint(j.State, j.StdoutBytes, j.StderrBytes), nil
			},
		},
	}
}

func outputArguments(v map[string]string) (map[string]any, error) {
	if owner, err := lease.LeaseOfJob(v["job_id"]); err != nil || string(owner) != v["lease_id"] {
		return nil, &lease.Error{Code: lease.CodeJobNotFound, Message: fmt.Sprintf("lease %s has no job %s", quote(v["lease_id"]), quote(v["job_id"]))}
	}
	return map[string]any{"job_id": v["job_id"], "stream": v["stream"], "offset": -outputShown, "limit_bytes": outputShown}, nil
}

// LiveResources are the resources of the leases that are alive.
func LiveResources(ctx context.Context, r Reader) ([]Listed, error) {
	live, err := r.List(ctx, true, listedMost)
	if err != nil {
		return nil, err
	}
	list := make([]Listed, 0, len(live))
	for _, l := range live {
		list = append(list, Listed{
			URI: "lease://" + string(l.ID), Name: string(l.ID), Title: fmt.Sprintf("Lease %s, %s", l.ID, l.Type), MIMEType: jsonText,
		})
	}
	return list, nil
}

// today is where the money stands, without the month's leases.
type today struct {
	Day      policy.Money  `json:"day_usd"` // spent and reserved since the day began
	Reserved policy.Money  `json:"reserved_usd"`
	Burn     policy.Money  `json:"burn_usd_per_hour"`
	Leases   int           `json:"live_leases"`
	Caps     []capLine     `json:"caps"`
	Left     *policy.Money `json:"budget_left_usd,omitempty"`
	At       string        `json:"at"`
	Trouble  string        `json:"trouble,omitempty"` // why there are no caps
}

func todayOf(s lease.Spending) today {
	t := s.Usage.Principal
	return today{
		Day: t.Day, Reserved: s.Held, Burn: t.BurnPerHour, Leases: t.Leases, Caps: capLines(s), Left: leftOf(s), At: clock(s.At), Trouble: s.Trouble,
	}
}

// leftOf is what is left under all caps: nothing where there are none, or where they are not known.
func leftOf(s lease.Spending) *policy.Money {
	if s.Trouble != "" {
		return nil
	}
	return limited(s.Left)
}

func capLines(s lease.Spending) []capLine {
	list := make([]capLine, 0, len(s.Caps))
	for _, c := range s.Caps {
		list = append(list, capLine{Rule: c.Rule, Limit: c.Limit, Used: c.Used, Left: c.Left, Source: c.Source})
	}
	return list
}

// completionTime bounds the search for what an argument may be: someone is typing.
const completionTime = 2 * time.Second

// Complete gives the values that an argument of a resource or a prompt may have, of
// those that begin with prefix. others are the arguments that are known already.
func Complete(ctx context.Context, l Leases, argument, prefix string, others map[string]string) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	var all []string
	switch argument {
	case "lease_id":
		live, err := l.List(ctx, true, listedMost)
		if err != nil {
			return nil
		}
		for _, x := range live {
			all = append(all, string(x.ID))
		}
	case "job_id":
		jobs, err := l.Jobs(ctx, lease.ID(others["lease_id"]))
		if err != nil {
			return nil
		}
		for _, j := range jobs {
			all = append(all, j.ID)
		}
	case "stream":
		all = []string{string(remote.Stdout), string(remote.Stderr)}
	case "instance_type":
		c, err := l.Capacity(ctx)
		if err != nil {
			return nil
		}
		for _, o := range c.Offers {
			all = append(all, o.Type)
		}
	case "precision":
		all = precisions()
	case "use":
		all = uses()
	}
	var fitting []string
	for _, v := range all {
		if strings.HasPrefix(v, prefix) {
			fitting = append(fitting, v)
		}
	}
	return fitting
}
