package lambdatest

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lambda/lambdatest/machine"
)

var (
	hostnamePattern = regexp.MustCompile(`^[a-z0-9][0-9a-z-]{0,62}$`)
	tagPattern      = regexp.MustCompile(`^[a-z][a-z0-9-:]+$`)
	mountPattern    = regexp.MustCompile(`^(/home|/lambda/nfs|/data)[//a-zA-Z0-9-]*$`)
)

const maxUserData = 1_000_000 // bytes

// launchOrder is a launch request that has been read.
type launchOrder struct {
	region, typ, name, hostname, imageID, imageFamily, userData string
	keys, filesystems, rulesets                                 []string
	mounts                                                      []mount
	tags                                                        []Tag
}

func (s *Server) launch(c *call) (any, *apiError) {
	o, e := s.readLaunch(c)
	if e != nil {
		return nil, e
	}
	i, e := s.start(c.now, o, c.faults)
	if e != nil {
		if e.Code == CodeDoesNotExist {
			e.Status = s.cfg.LaunchNotFound
		}
		return nil, e
	}
	return object{"instance_ids": []string{i.ID}}, nil
}

func (s *Server) readLaunch(c *call) (launchOrder, *apiError) {
	var o launchOrder
	f, e := s.object(c)
	if e != nil {
		return o, e
	}
	for _, name := range []string{"region_name", "instance_type_name", "ssh_key_names"} {
		f.need(name)
	}
	o.region, o.typ = f.str("region_name", limits{}), f.str("instance_type_name", limits{})
	o.name = f.str("name", limits{max: 64})
	o.hostname = f.str("hostname", limits{min: 1, max: 63, pattern: hostnamePattern})
	o.userData = f.str("user_data", limits{})
	if len(o.userData) > maxUserData {
		f.problem("user_data", "String should have at most %d bytes", maxUserData)
	}
	o.keys, o.filesystems = f.strs("ssh_key_names"), f.strs("file_system_names")
	if f.has("ssh_key_names") && len(o.keys) != 1 {
		f.problem("ssh_key_names", "Exactly one SSH key must be specified")
	}
	for _, m := range f.objs("file_system_mounts") {
		m.need("mount_point")
		m.need("file_system_id")
		o.mounts = append(o.mounts, mount{m.str("mount_point", limits{max: 256, pattern: mountPattern}), m.str("file_system_id", limits{})})
	}
	for _, t := range f.objs("tags") {
		t.need("key")
		t.need("value")
		tag := Tag{t.str("key", limits{max: 55, pattern: tagPattern}), t.str("value", limits{max: 128})}
		if strings.HasPrefix(tag.Key, "lambda-ai-") {
			t.problem("key", "The prefix lambda-ai- is reserved")
		}
		o.tags = append(o.tags, tag)
	}
	for _, r := range f.objs("firewall_rulesets") {
		r.need("id")
		o.rulesets = append(o.rulesets, r.str("id", limits{}))
	}
	o.readImage(f)
	return o, s.finish(c, f, quantity(f)...)
}

func (o *launchOrder) readImage(f *fields) {
	if !f.has("image") {
		return
	}
	image := f.child("image", f.raw["image"])
	if !image.has("id") && !image.has("family") {
		image.problem("id", "Field required (or family)")
	}
	o.imageID, o.imageFamily = image.str("id", limits{}), image.str("family", limits{})
}

// quantity is not in the document any more, but 1 is still taken.
func quantity(f *fields) (undocumented []string) {
	if !f.has("quantity") {
		return nil
	}
	if raw := strings.TrimSpace(string(f.raw["quantity"])); raw != "1" {
		f.problem("quantity", "Requested too many instances.")
	}
	return []string{"quantity"}
}

// start checks an order against the account and makes the instance.
func (s *Server) start(now time.Time, o launchOrder, faults []Fault) (*instance, *apiError) {
	region, ok := s.acct.Catalog.region(o.region)
	if !ok {
		return nil, refusef(CodeInvalidParameters, "Region %q does not exist", o.region)
	}
	typ := s.acct.Catalog.typ(o.typ)
	if typ == nil {
		return nil, refusef(CodeDoesNotExist, "Instance type %q does not exist", o.typ)
	}
	key := s.key(o.keys[0])
	if key == nil {
		return nil, refusef(CodeDoesNotExist, "SSH key %q does not exist", o.keys[0])
	}
	image, ok := s.acct.Catalog.image(o.imageID, o.imageFamily, o.region, typ.Architecture)
	if !ok {
		return nil, refusef(CodeDoesNotExist, "Image %q does not exist in region %q for %s",
			o.imageID+o.imageFamily, o.region, archOr(typ.Architecture))
	}
	if archOr(image.Architecture) != archOr(typ.Architecture) {
		return nil, refusef(CodeInvalidParameters, "Image %q is for another architecture than %s", o.imageID, o.typ)
	}
	mounts, e := s.mounts(o)
	if e != nil {
		return nil, e
	}
	for _, id := range o.rulesets {
		r := s.ruleset(id)
		if r == nil {
			return nil, refusef(CodeDoesNotExist, "Firewall ruleset %q does not exist", id)
		}
		if r.Region != o.region {
			return nil, refusef(CodeInvalidParameters, "Firewall ruleset %q is not in region %q", id, o.region)
		}
	}
	if e := s.room(now, typ, o.region, faults); e != nil {
		return nil, e
	}
	return s.create(now, o, region, typ, key, image, mounts, faults), nil
}

// room checks what stands in the way of one more instance.
func (s *Server) room(now time.Time, typ *Type, region string, faults []Fault) *apiError {
	if len(s.acct.GlobalRules) > maxRules {
		return refusef(CodeInvalidParameters, "Too many firewall rules: at most %d are supported", maxRules)
	}
	if s.cfg.Quota > 0 {
		n := 0
		for _, i := range s.acct.Instances {
			if i.running(now) {
				n++
			}
		}
		if n >= s.cfg.Quota {
			return refuse(CodeQuotaExceeded)
		}
	}
	for _, f := range faults {
		if f.NoCapacity {
			return refuse(CodeNoCapacity)
		}
	}
	if typ.Capacity[region] == 0 {
		return refuse(CodeNoCapacity)
	}
	return nil
}

func (s *Server) create(now time.Time, o launchOrder, region Region, typ *Type, key *Key, image Image, mounts []mount, faults []Fault) *instance {
	boot := s.cfg.BootTime
	i := &instance{ID: s.newID(), Name: o.name, Hostname: o.hostname, Region: region,
		ImageID: image.id(region.Name), ImageFamily: image.Family,
		KeyNames: []string{key.Name}, AuthorizedKeys: []string{key.PublicKey},
		Tags: o.tags, Mounts: mounts, Rulesets: o.rulesets, UserData: o.userData,
		LaunchedAt: now, VisibleAt: now, ListedAt: now}
	var hostKey, death time.Duration
	for _, f := range faults {
		if f.Boot > 0 {
			boot = f.Boot
		}
		if f.PriceCents > 0 {
			typ.PriceCentsPerHour = f.PriceCents
		}
		if f.DropTags {
			i.Tags = nil
		}
		if f.GPU != "" {
			i.GPUFault = f.GPU
		}
		if f.HostKeyAfter > 0 {
			hostKey = f.HostKeyAfter
		}
		if f.DieAfter > 0 {
			death, i.DiesAs = f.DieAfter, f.DieAs
		}
		i.NeverHealthy = i.NeverHealthy || f.NeverHealthy
		i.VisibleAt, i.ListedAt = i.VisibleAt.Add(f.LateBy), i.ListedAt.Add(f.UnlistedFor)
	}
	i.IPAt, i.ReadyAt = now.Add(boot*3/10), now.Add(boot)
	if hostKey > 0 {
		i.HostKeyAt = i.ReadyAt.Add(hostKey)
	}
	if death > 0 {
		s.dies(i, i.ReadyAt.Add(death), i.DiesAs)
	}
	i.Type = *typ
	i.Type.Capacity = nil
	if n := typ.Capacity[region.Name]; n != Unlimited {
		typ.Capacity[region.Name], i.HoldsSlot = n-1, true
	}
	s.address(i)
	i.JupyterToken = s.newID()
	for _, m := range mounts {
		i.FilesystemIDs = append(i.FilesystemIDs, m.FileSystemID)
	}
	s.acct.Instances = append(s.acct.Instances, i)
	s.audit(now, "instance", "launched", i)
	s.cfg.Logf("instance %s (%s): %s in %s launched", i.ID, i.Name, typ.Name, region.Name)
	return i
}

func (s *Server) dies(i *instance, at time.Time, as Status) {
	if as == "" {
		as = Unhealthy
	}
	i.DiesAt, i.DiesAs = at, as
	if as != Unhealthy {
		i.GoneAt = at.Add(s.cfg.Linger)
	}
}

// address gives an instance an address that no other has. One region's small
// machines come without a private one.
func (s *Server) address(i *instance) {
	s.acct.NextAddress++
	i.IP = machine.Loopback(s.acct.NextAddress)
	if n := s.acct.NextAddress; i.Region.Name != "us-south-1" {
		i.PrivateIP = fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)
	}
}
