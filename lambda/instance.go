package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Status is the state of an instance. A status that is not listed here is kept as it came; it must not be taken for the end.
type Status string

// The statuses of the OpenAPI document.
const (
	StatusBooting     Status = "booting"
	StatusActive      Status = "active"
	StatusUnhealthy   Status = "unhealthy"
	StatusTerminating Status = "terminating"
	StatusTerminated  Status = "terminated"
	StatusPreempted   Status = "preempted"
)

// Instance is a machine of the account. Fields that the service leaves out or sends as null are empty.
type Instance struct {
	ID               string               `json:"id"`
	Name             string               `json:"name,omitempty"` // not unique
	IP               string               `json:"ip,omitempty"`   // public IPv4; absent early in the boot
	PrivateIP        string               `json:"private_ip,omitempty"`
	Status           Status               `json:"status"`
	SSHKeyNames      []string             `json:"ssh_key_names"`
	FileSystemNames  []string             `json:"file_system_names"`
	FileSystemMounts []FileSystemMount    `json:"file_system_mounts,omitempty"`
	Region           Region               `json:"region"`
	InstanceType     InstanceType         `json:"instance_type"`
	Hostname         string               `json:"hostname,omitempty"`
	JupyterToken     Secret               `json:"jupyter_token,omitzero"`
	JupyterURL       Secret               `json:"jupyter_url,omitzero"` // holds the token
	IsReserved       bool                 `json:"is_reserved,omitempty"`
	Actions          Actions              `json:"actions"`
	Tags             []Tag                `json:"tags,omitempty"`
	FirewallRulesets []FirewallRulesetRef `json:"firewall_rulesets,omitempty"`

	// Newer than the document, and often absent.
	FirstHealthy *time.Time `json:"first_healthy,omitempty"` // when billing began
	Image        *ImageRef  `json:"image,omitempty"`
	WorkspaceID  string     `json:"workspace_id,omitempty"`
}

// Tag is a label of an instance. A key has 2 to 55 characters a-z, 0-9, "-" and ":" and begins with a letter, but not with
// "lambda-ai-"; a value has at most 128.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// FileSystemMount says where a filesystem is mounted.
type FileSystemMount struct {
	MountPoint   string `json:"mount_point"` // below /home, /lambda/nfs or /data
	FileSystemID string `json:"file_system_id"`
}

// FirewallRulesetRef names a ruleset by its id.
type FirewallRulesetRef struct {
	ID string `json:"id"`
}

// Actions says what can be done with an instance now.
type Actions struct {
	Migrate    Action  `json:"migrate"`
	Rebuild    Action  `json:"rebuild"`
	Restart    Action  `json:"restart"`
	ColdReboot Action  `json:"cold_reboot"`
	Terminate  Action  `json:"terminate"`
	PowerCycle *Action `json:"power_cycle,omitempty"` // newer
}

// Action is whether one thing can be done, and why not: "vm-has-not-launched", "vm-is-too-old", "vm-is-terminating",
// "vm-action-in-progress" or another code.
type Action struct {
	Available         bool   `json:"available"`
	ReasonCode        string `json:"reason_code,omitempty"`
	ReasonDescription string `json:"reason_description,omitempty"`
}

// UnmarshalJSON is lenient with the fields that the document does not describe: a listing must not fail because of them.
func (i *Instance) UnmarshalJSON(b []byte) error {
	type plain Instance
	in := struct {
		*plain
		FirstHealthy looseTime       `json:"first_healthy"`
		Image        json.RawMessage `json:"image"`
		WorkspaceID  json.RawMessage `json:"workspace_id"`
		IsReserved   json.RawMessage `json:"is_reserved"`
	}{plain: (*plain)(i)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	i.FirstHealthy, i.Image, i.WorkspaceID = nil, nil, ""
	if t := in.FirstHealthy.t; !t.IsZero() {
		i.FirstHealthy = &t
	}
	var image *ImageRef
	if json.Unmarshal(in.Image, &image) == nil && image != nil && *image != (ImageRef{}) {
		i.Image = image
	}
	_ = json.Unmarshal(in.WorkspaceID, &i.WorkspaceID)
	i.IsReserved = string(in.IsReserved) == "true"
	return nil
}

func (i *Instance) check() error {
	if i.ID == "" {
		return errors.New("an instance has no id")
	}
	return nil
}

// clone shares nothing with i.
func (i *Instance) clone() Instance {
	n := *i
	n.SSHKeyNames, n.FileSystemNames = slices.Clone(i.SSHKeyNames), slices.Clone(i.FileSystemNames)
	n.FileSystemMounts, n.Tags = slices.Clone(i.FileSystemMounts), slices.Clone(i.Tags)
	n.FirewallRulesets = slices.Clone(i.FirewallRulesets)
	n.FirstHealthy, n.Image = clonePointer(i.FirstHealthy), clonePointer(i.Image)
	n.Actions.PowerCycle = clonePointer(i.Actions.PowerCycle)
	return n
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// maxPages bounds a listing whose pages never end.
const maxPages = 200

// Instances lists all instances that the service shows, through all pages: those that boot, run, are ending, and for a
// short time those that have ended. A listing that is not complete is an error, never a shorter list. An instance
// that was launched moments ago may be missing.
//
// Callers at the same time share one request, unless it was on the wire before the call began.
func (c *Client) Instances(ctx context.Context) ([]Instance, error) {
	k := call{op: OpInstances, method: http.MethodGet, path: "/instances", safe: true}
	all, err := share(ctx, &c.flights, string(k.op), true, func(ctx context.Context, f *flight) ([]Instance, error) {
		k := k.on(f)
		return c.allInstances(ctx, k)
	})
	if err != nil {
		return nil, c.left(k, err)
	}
	own := make([]Instance, len(all))
	for i := range all {
		own[i] = all[i].clone()
	}
	return own, nil
}

func (c *Client) allInstances(ctx context.Context, k call) ([]Instance, error) {
	var all []Instance
	seen := map[string]int{} // by id, the place in all: pages shift when something is launched meanwhile
	tokens := map[string]bool{}
	for range maxPages {
		var page []Instance
		var next string
		err := c.do(ctx, k, func(env envelope) (err error) {
			page = nil
			if err = decodeInto(env.Data, '[', &page); err != nil {
				return err
			}
			if err = checkAll(page, (*Instance).check); err != nil {
				return err
			}
			next, err = env.next()
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, i := range page {
			at, again := seen[i.ID]
			switch {
			case !again:
				seen[i.ID] = len(all)
				all = append(all, i)
			case all[at].Status == StatusTerminated:
				all[at] = i // of two that contradict each other, the one that may be billed
			}
		}
		if next == "" {
			return all, nil
		}
		if tokens[next] {
			return nil, c.fail(k, &Error{Message: "the listing repeats a page", Retry: RetryLater})
		}
		tokens[next] = true
		k.query = url.Values{"page_token": {next}}
		k.flight = nil // the first page is old by now: nobody may join
	}
	return nil, c.fail(k, &Error{Message: fmt.Sprintf("the listing has more than %d pages", maxPages), Retry: RetryLater})
}

// Instance fetches one instance. [IsNotFound] says that this account has none with the id, or no longer.
func (c *Client) Instance(ctx context.Context, id string) (Instance, error) {
	k := call{op: OpInstance, method: http.MethodGet, safe: true}
	var err error
	if k.path, err = pathWith("/instances/", id); err != nil {
		return Instance{}, c.invalid(k, err)
	}
	i, err := share(ctx, &c.flights, string(k.op)+" "+id, true, func(ctx context.Context, f *flight) (Instance, error) {
		k := k.on(f)
		return object(ctx, c, k, sameInstance(id))
	})
	if err != nil {
		return Instance{}, c.left(k, err)
	}
	return i.clone(), nil
}

func sameInstance(id string) func(*Instance) error {
	return func(i *Instance) error {
		if i.ID != id {
			return errors.New("another instance came back")
		}
		return nil
	}
}
