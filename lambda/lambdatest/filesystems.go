package lambdatest

import (
	"regexp"
	"time"
)

var filesystemPattern = regexp.MustCompile(`^[a-zA-Z]+[0-9a-zA-Z-]*$`)

// maxFilesystems is the account's quota.
const maxFilesystems = 24

type filesystem struct {
	ID, Name, Region string
	Created          time.Time
}

func (f *filesystem) mountPoint() string { return "/lambda/nfs/" + f.Name }

func (s *Server) filesystem(id string) *filesystem {
	for _, f := range s.acct.Filesystems {
		if f.ID == id {
			return f
		}
	}
	return nil
}

func (s *Server) filesystemNamed(name string) *filesystem {
	for _, f := range s.acct.Filesystems {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// inUse is true until the API has forgotten the last instance that had it: the
// service is late to notice the end of an instance.
func (s *Server) inUse(f *filesystem, now time.Time) bool {
	for _, i := range s.acct.Instances {
		for _, id := range i.FilesystemIDs {
			if id == f.ID && !i.gone(now) {
				return true
			}
		}
	}
	return false
}

func (s *Server) filesystemNames(i *instance) []string {
	names := []string{}
	for _, id := range i.FilesystemIDs {
		if f := s.filesystem(id); f != nil {
			names = append(names, f.Name)
		}
	}
	return names
}

// mounts resolves the filesystems of an order. A mount point that is given wins
// over the default of a name.
func (s *Server) mounts(o launchOrder) ([]mount, *apiError) {
	out := []mount{}
	seen := map[string]bool{}
	add := func(f *filesystem, what, at string) *apiError {
		if f == nil {
			return refusef(CodeDoesNotExist, "Filesystem %q was not found.", what)
		}
		if f.Region != o.region {
			return refusef(CodeWrongRegion, "Filesystem %q is in %s, not in %s.", f.Name, f.Region, o.region)
		}
		if !seen[f.ID] {
			out = append(out, mount{at, f.ID})
		}
		seen[f.ID] = true
		return nil
	}
	for _, m := range o.mounts {
		if e := add(s.filesystem(m.FileSystemID), m.FileSystemID, m.MountPoint); e != nil {
			return nil, e
		}
	}
	for _, name := range o.filesystems {
		f := s.filesystemNamed(name)
		at := ""
		if f != nil {
			at = f.mountPoint()
		}
		if e := add(f, name, at); e != nil {
			return nil, e
		}
	}
	return out, nil
}

func (s *Server) filesystemJSON(f *filesystem, now time.Time) object {
	region, _ := s.acct.Catalog.region(f.Region)
	return object{
		"id": f.ID, "name": f.Name, "mount_point": f.mountPoint(), "created": timestamp(f.Created),
		"created_by": object{"id": ownerID, "email": "me@example.com", "status": "active"},
		"is_in_use":  s.inUse(f, now), "region": region, "bytes_used": 0,
	}
}

func (s *Server) listFilesystems(c *call) (any, *apiError) {
	out := []object{}
	for _, f := range s.acct.Filesystems {
		out = append(out, s.filesystemJSON(f, c.now))
	}
	return out, nil
}

func (s *Server) createFilesystem(c *call) (any, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	f.need("name")
	f.need("region")
	name, region := f.str("name", limits{min: 1, max: 60, pattern: filesystemPattern}), f.str("region", limits{})
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	if _, ok := s.acct.Catalog.region(region); !ok {
		return nil, refusef(CodeInvalidParameters, "Region %q does not exist", region)
	}
	if s.filesystemNamed(name) != nil {
		return nil, refusef(CodeDuplicate, "A filesystem named %q exists.", name)
	}
	if len(s.acct.Filesystems) >= maxFilesystems {
		return nil, refuse(CodeQuotaExceeded)
	}
	fs := &filesystem{ID: s.newID(), Name: name, Region: region, Created: c.now}
	s.acct.Filesystems = append(s.acct.Filesystems, fs)
	s.auditObject(c.now, "file_system", "created", fs.ID, nil)
	return s.filesystemJSON(fs, c.now), nil
}

func (s *Server) deleteFilesystem(c *call) (any, *apiError) {
	for n, f := range s.acct.Filesystems {
		if f.ID != c.id {
			continue
		}
		if s.inUse(f, c.now) {
			return nil, refuse(CodeFilesystemInUse)
		}
		s.acct.Filesystems = append(s.acct.Filesystems[:n:n], s.acct.Filesystems[n+1:]...)
		s.auditObject(c.now, "file_system", "deleted", f.ID, nil)
		return object{"deleted_ids": []string{f.ID}}, nil
	}
	e := refusef(CodeDoesNotExist, "Filesystem was not found.")
	return nil, e
}
