package tools

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

type syncIn struct {
	LeaseID   lease.ID `json:"lease_id"`
	LocalDir  string   `json:"local_dir" jsonschema:"minLength=1" jsonschema_description:"On the server's computer."`
	RemoteDir string   `json:"remote_dir,omitempty" jsonschema_description:"Absolute, or below the home directory. Default: the name of local_dir."`
	Delete    bool     `json:"delete,omitempty" jsonschema_description:"Also delete what an earlier sync sent and is gone here."`
	MaxDelete int      `json:"max_delete,omitempty" jsonschema:"minimum=1" jsonschema_description:"Default: half of what was sent."`
}

type syncOut struct {
	Complete     bool     `json:"complete" jsonschema_description:"False: call again for the rest."`
	RemoteDir    string   `json:"remote_dir"`
	Files        int      `json:"files,omitempty" jsonschema:"-"` // there now, once complete
	FilesSent    int      `json:"files_sent"`
	BytesSent    int64    `json:"bytes_sent"`
	FilesDeleted int      `json:"files_deleted" jsonschema:"-"`
	Skipped      []string `json:"skipped,omitempty"`
	leaseBeside  `jsonschema:"-"`
	advice
}

// transferTime, in seconds, leaves some of a call's time to say how far a large
// directory has come. The next call carries what is missing.
const transferTime = 40

func syncFiles(l interface {
	Reader
	Worker
}, roots, denied []string) Tool {
	return New(Def{
		Name:  "sync_files",
		Title: "Send files to a lease",
		Description: "Sends a local directory to a lease: only what changed, without what git ignores and what .gpuleaseignore names. " +
			"Overwrites files there. Call it again after each change.",
		Annotations: Annotations{Destructive: true, Idempotent: true},
	}, func(ctx context.Context, in syncIn) (syncOut, error) {
		src, err := confine(in.LocalDir, roots)
		if err != nil {
			return syncOut{}, err
		}
		if inside(src, denied) {
			return syncOut{}, &lease.Error{
				Code: lease.CodePathDenied, Message: fmt.Sprintf("%q holds gpulease's own state or settings, which are never sent", in.LocalDir), Next: "give another directory",
			}
		}
		dst := in.RemoteDir
		if dst == "" {
			dst = filepath.Base(src)
		}
		brief, cancel := context.WithTimeout(ctx, Wait(ctx, transferTime))
		defer cancel()
		so := sofar{note: Progress(ctx), verb: "sent"}
		sum, owner, err := l.Push(brief, in.LeaseID, src, dst, remote.PushOptions{
			Delete: in.Delete, MaxDelete: in.MaxDelete, Exclude: denied, Progress: so.add,
		})
		if err != nil {
			if brief.Err() == nil || ctx.Err() != nil {
				return syncOut{}, ofLease(err, in.LeaseID)
			}
			if sum.Sent == 0 && so.kept() == 0 {
				return syncOut{}, tooSlow(in.LeaseID, err, "nothing could be sent whole", "leave files out with .gpuleaseignore; download them on the machine with run_command")
			}
		}
		s := status(ctx, l, owner)
		out := syncOut{
			Complete: err == nil, RemoteDir: dst, FilesSent: sum.Sent, BytesSent: sum.SentBytes, FilesDeleted: sum.Deleted,
			Skipped:     shownPaths(sum.Skipped, skippedLine),
			leaseBeside: besideOf(s), advice: adviceOf(s, say("run_command with lease_id %q and cwd %q", in.LeaseID, dst)),
		}
		if err == nil {
			out.Files = sum.Files
		} else {
			out.Next = then("sync_files", in.again(), "sync_files with the same arguments: it goes on with what is missing")
			if part := so.kept(); part > 0 {
				out.Warnings = append(slices.Clone(out.Warnings), fmt.Sprintf("large files are under way: %d bytes of parts went out, and the next call goes on from there", part))
			}
		}
		if n := len(sum.Skipped); n > 0 {
			out.Warnings = append(slices.Clone(out.Warnings), plural(n, "file")+" not sent; see skipped")
		}
		for _, own := range denied {
			if real := resolved(own); inside(real, []string{src}) {
				out.Warnings = append(slices.Clone(out.Warnings), valid(fmt.Sprintf("left out: %s holds gpulease's own state or settings", real)))
			}
		}
		return out, nil
	})
}

// again are the arguments of the same call.
func (in syncIn) again() with {
	w := with{"lease_id": in.LeaseID, "local_dir": in.LocalDir}
	if in.RemoteDir != "" {
		w["remote_dir"] = in.RemoteDir
	}
	if in.Delete {
		w["delete"] = true
	}
	if in.MaxDelete > 0 {
		w["max_delete"] = in.MaxDelete
	}
	return w
}

// Text is what was sent.
func (o syncOut) Text() string {
	text := fmt.Sprintf("%s (%d bytes) sent to %s", plural(o.FilesSent, "file"), o.BytesSent, o.RemoteDir)
	if o.FilesDeleted > 0 {
		text += fmt.Sprintf(", %d deleted there", o.FilesDeleted)
	}
	if !o.Complete {
		text += ", NOT YET ALL"
	}
	if len(o.Skipped) > 0 {
		text += "\nskipped: " + strings.Join(o.Skipped, ", ")
	}
	return text + o.lines()
}
