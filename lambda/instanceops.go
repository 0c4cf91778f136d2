package lambda

import (
	"context"
	"errors"
	"net/http"
)

// RenameInstance sets the name of an instance, at most 64 characters. It is sent once. Names that prove who owns an
// instance should not be changed.
func (c *Client) RenameInstance(ctx context.Context, id, name string) (Instance, error) {
	k := call{op: OpRenameInstance, method: http.MethodPost, class: ClassChange, body: struct {
		Name string `json:"name"`
	}{name}}
	err := length("name", name, 0, 64)
	if err == nil {
		k.path, err = pathWith("/instances/", id)
	}
	if err != nil {
		return Instance{}, c.invalid(k, err)
	}
	return object(ctx, c, k, sameInstance(id))
}

// Restart reboots instances and returns those that the service says it restarted. Disk, address and billing stay. It is
// sent once.
func (c *Client) Restart(ctx context.Context, ids ...string) ([]Instance, error) {
	k := call{op: OpRestart, method: http.MethodPost, path: "/instance-operations/restart", class: ClassChange, body: idsBody{ids}}
	if err := checkIDs(ids); err != nil {
		return nil, c.invalid(k, err)
	}
	type restarted struct {
		Instances []Instance `json:"restarted_instances"`
	}
	out, err := object(ctx, c, k, func(r *restarted) error { return checkAll(r.Instances, (*Instance).check) })
	return out.Instances, err
}

// idsBody is the JSON of the operations on several instances.
type idsBody struct {
	InstanceIDs []string `json:"instance_ids"`
}

func checkIDs(ids []string) error {
	if len(ids) == 0 {
		return errors.New("no instance is named")
	}
	for _, id := range ids {
		if err := checkID(id); err != nil {
			return err
		}
	}
	return nil
}

// Terminate asks to end instances and returns those that the service says it is ending. That is a promise, not the end:
// an instance is gone when it is listed as [StatusTerminated] or no longer known. An instance that is not in the answer is not
// known to be ending. The service takes all ids or none: one that is unknown spoils the call, so unrelated
// instances are better ended one by one.
//
// It goes before all other requests, and is repeated where that may help.
func (c *Client) Terminate(ctx context.Context, ids ...string) ([]Instance, error) {
	k := call{op: OpTerminate, method: http.MethodPost, path: "/instance-operations/terminate", class: ClassTerminate,
		safe: true, body: idsBody{ids}}
	if err := checkIDs(ids); err != nil {
		return nil, c.invalid(k, err)
	}
	type terminated struct {
		Instances []Instance `json:"terminated_instances"`
	}
	out, err := object(ctx, c, k, func(t *terminated) error { return checkAll(t.Instances, (*Instance).check) })
	return out.Instances, err
}
