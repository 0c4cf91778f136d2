package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// Filesystem is storage that outlives instances and is billed until it is deleted.
type Filesystem struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`        // what a launch names
	MountPoint string    `json:"mount_point"` // the default place
	Created    time.Time `json:"created"`     // zero when the service's text is not a time
	CreatedBy  User      `json:"created_by"`
	IsInUse    bool      `json:"is_in_use"` // mounted somewhere, so it cannot be deleted
	Region     Region    `json:"region"`
	BytesUsed  *int64    `json:"bytes_used,omitempty"` // an estimate, hours old; nil when unknown
}

// User is a member of the account's team.
type User struct {
	ID     string `json:"id"`
	Email  string `json:"email"`
	Status string `json:"status"` // "active" or "deactivated"
}

// UnmarshalJSON takes a time without a zone too.
func (f *Filesystem) UnmarshalJSON(b []byte) error {
	type plain Filesystem
	in := struct {
		*plain
		Created looseTime `json:"created"`
	}{plain: (*plain)(f)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	f.Created = in.Created.t
	return nil
}

func (f *Filesystem) check() error {
	if f.ID == "" || f.Name == "" {
		return errors.New("a filesystem has no id or name")
	}
	return nil
}

var filesystemNameForm = regexp.MustCompile(`^[a-zA-Z]+[0-9a-zA-Z-]*$`)

// Filesystems lists the filesystems of the account.
func (c *Client) Filesystems(ctx context.Context) ([]Filesystem, error) {
	// The path of the list has a hyphen; the paths of the changes have none.
	all, err := list(ctx, c, call{op: OpFilesystems, method: http.MethodGet, path: "/file-systems", safe: true}, (*Filesystem).check)
	for i := range all {
		all[i].BytesUsed = clonePointer(all[i].BytesUsed)
	}
	return all, err
}

// CreateFilesystem makes a filesystem in a region. The name has 1 to 60 letters, digits and "-", and begins with a letter.
// It is sent once.
func (c *Client) CreateFilesystem(ctx context.Context, name, region string) (Filesystem, error) {
	k := call{op: OpCreateFilesystem, method: http.MethodPost, path: "/filesystems", class: ClassChange, body: struct {
		Name   string `json:"name"`
		Region string `json:"region"`
	}{name, region}}
	switch {
	case len(name) > 60 || !filesystemNameForm.MatchString(name):
		return Filesystem{}, c.invalid(k, errors.New("name must have 1 to 60 letters, digits and -, and begin with a letter"))
	case region == "":
		return Filesystem{}, c.invalid(k, errors.New("region is missing"))
	}
	return object(ctx, c, k, (*Filesystem).check)
}

// DeleteFilesystem deletes a filesystem by its id, with all that is on it. It is repeated where that may help, so
// [IsNotFound] can mean that an earlier attempt deleted it. Soon after an instance has ended, its filesystem may
// still be refused with [CodeFilesystemInUse].
func (c *Client) DeleteFilesystem(ctx context.Context, id string) error {
	k := call{op: OpDeleteFilesystem, method: http.MethodDelete, class: ClassChange, safe: true}
	var err error
	if k.path, err = pathWith("/filesystems/", id); err != nil {
		return c.invalid(k, err)
	}
	type deleted struct {
		IDs []string `json:"deleted_ids"`
	}
	_, err = object(ctx, c, k, func(d *deleted) error {
		if !slices.Contains(d.IDs, id) {
			return fmt.Errorf("it does not name %s as deleted", id)
		}
		return nil
	})
	return err
}
