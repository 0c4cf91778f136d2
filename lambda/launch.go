package lambda

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// LaunchRequest is what a launch asks for. Only the first three fields are required.
type LaunchRequest struct {
	Region       string // its name
	InstanceType string // its name
	SSHKeyName   string // the service takes exactly one

	Name             string   // at most 64 characters; not unique
	Hostname         string   // a-z, 0-9 and "-", at most 63; without it one is made from the address
	Image            ImageRef // the zero value is the service's default, which differs between regions
	UserData         Secret   // cloud-init, at most 1 MB of plain text
	Tags             []Tag
	FileSystemNames  []string // in the same region; mounted at their default places
	FileSystemMounts []FileSystemMount
	FirewallRulesets []FirewallRulesetRef // in the same region
}

// launchBody is the JSON of a launch.
type launchBody struct {
	RegionName       string               `json:"region_name"`
	InstanceTypeName string               `json:"instance_type_name"`
	SSHKeyNames      []string             `json:"ssh_key_names"`
	Name             string               `json:"name,omitempty"`
	Hostname         string               `json:"hostname,omitempty"`
	Image            *ImageRef            `json:"image,omitempty"`
	UserData         string               `json:"user_data,omitempty"`
	Tags             []Tag                `json:"tags,omitempty"`
	FileSystemNames  []string             `json:"file_system_names,omitempty"`
	FileSystemMounts []FileSystemMount    `json:"file_system_mounts,omitempty"`
	FirewallRulesets []FirewallRulesetRef `json:"firewall_rulesets,omitempty"`
}

const maxUserData = 1_000_000

var (
	hostnameForm = regexp.MustCompile(`^[a-z0-9][0-9a-z-]{0,62}$`)
	tagKeyForm   = regexp.MustCompile(`^[a-z][a-z0-9-:]+$`)
	mountForm    = regexp.MustCompile(`^(/home|/lambda/nfs|/data)[/a-zA-Z0-9-]*$`)
)

// Check finds what the service would refuse by its document, without asking it.
func (r LaunchRequest) Check() error {
	switch {
	case r.Region == "":
		return errors.New("region is missing")
	case r.InstanceType == "":
		return errors.New("instance type is missing")
	case r.SSHKeyName == "":
		return errors.New("ssh key name is missing")
	case r.Hostname != "" && !hostnameForm.MatchString(r.Hostname):
		return errors.New("hostname must have 1 to 63 characters a-z, 0-9 and -, and not begin with -")
	case r.Image.ID != "" && r.Image.Family != "":
		return errors.New("image must be named by its id or its family, not by both")
	case len(r.UserData.Reveal()) > maxUserData:
		return fmt.Errorf("user data is longer than %d bytes", maxUserData)
	}
	for _, t := range r.Tags {
		if len(t.Key) > 55 || !tagKeyForm.MatchString(t.Key) || strings.HasPrefix(t.Key, "lambda-ai-") {
			return fmt.Errorf("tag key %q must have 2 to 55 characters a-z, 0-9, - and :, begin with a letter and not with lambda-ai-", t.Key)
		}
		if err := length("value of tag "+t.Key, t.Value, 0, 128); err != nil {
			return err
		}
	}
	for _, m := range r.FileSystemMounts {
		if m.FileSystemID == "" || len(m.MountPoint) > 256 || !mountForm.MatchString(m.MountPoint) {
			return fmt.Errorf("mount point %q must be below /home, /lambda/nfs or /data and name a filesystem", m.MountPoint)
		}
	}
	for _, f := range r.FirewallRulesets {
		if f.ID == "" {
			return errors.New("a firewall ruleset has no id")
		}
	}
	return length("name", r.Name, 0, 64)
}

func (r LaunchRequest) body() launchBody {
	b := launchBody{
		RegionName: r.Region, InstanceTypeName: r.InstanceType, SSHKeyNames: []string{r.SSHKeyName}, Name: r.Name,
		Hostname: r.Hostname, UserData: r.UserData.Reveal(), Tags: r.Tags, FileSystemNames: r.FileSystemNames,
		FileSystemMounts: r.FileSystemMounts, FirewallRulesets: r.FirewallRulesets,
	}
	if r.Image != (ImageRef{}) {
		b.Image = &r.Image
	}
	return b
}

// Launch starts one instance and returns its id. From then on it may cost money. It is sent once and never repeated: the
// service has no way to tell two launches apart.
//
// Unless the error is [NothingHappened], an instance may exist. That includes an answer that cannot be read and one that
// does not name exactly one instance. A context that ends while the answer is awaited has the same effect, so
// give a launch a context that lives long enough (the default bound is 90 s).
func (c *Client) Launch(ctx context.Context, r LaunchRequest) (id string, err error) {
	k := call{op: OpLaunch, method: http.MethodPost, path: "/instance-operations/launch", class: ClassLaunch,
		secrets: fragments(r.UserData.Reveal())}
	if err := r.Check(); err != nil {
		return "", c.invalid(k, err)
	}
	k.body = r.body()
	type launched struct {
		InstanceIDs []string `json:"instance_ids"`
	}
	out, err := object(ctx, c, k, func(l *launched) error {
		if len(l.InstanceIDs) != 1 {
			return fmt.Errorf("it names %d instances, not one: %q", len(l.InstanceIDs), l.InstanceIDs[:min(len(l.InstanceIDs), 8)])
		}
		return checkID(l.InstanceIDs[0])
	})
	if err != nil {
		if IsCode(err, CodeInsufficientCapacity) {
			c.types.put(nil, c.now())
		}
		return "", err
	}
	return out.InstanceIDs[0], nil
}

// fragments are the lines of a text that are long enough to be told from ordinary words.
func fragments(secret string) []string {
	const shortest, most = 12, 2000
	if len(secret) < shortest {
		return nil
	}
	found := []string{secret}
	for line := range strings.Lines(secret) {
		if line = strings.TrimSpace(line); len(line) >= shortest && len(found) < most {
			found = append(found, line)
		}
	}
	return found
}
