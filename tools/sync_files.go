package tools

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

type syncIn struct {
	LeaseID   lease.ID `json:"lease_id"`
	LocalDir  string   `json:"local_dir" jsonschema:"minLength=1" jsonschema_description:"On the server's computer."`
	RemoteDir string   `json:"remote_dir,omitempty" jsonschema_description:"Absolute, or below the home directory. Default: the name of local_dir."`
	Delete    bool     `json:"delete,omitempty" jsonschema_description:"Also delete what an earlier sync sent and is gone here."`
}

type syncOut struct {
	Complete     bool     `json:"complete" jsonschema_description:"False: call again for the rest."`
	RemoteDir    string   `json:"remote_dir"`
	Files        int      `json:"files"`
	FilesSent    int      `json:"files_sent"`
	BytesSent    int64    `json:"bytes_sent"`
	FilesDeleted int      `json:"files_deleted"`
	Skipped      []string `json:"skipped,omitempty"`
	leaseBeside
	advice
}

const (
	// syncTime leaves some of a call's time to say how far a large directory has
	// come. The next call sends what is missing.
	syncTime     = 40
	skippedShown = 20
)

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
		brief, cancel := context.WithTimeout(ctx, Wait(ctx, syncTime))
		defer cancel()
		so := sofar{note: Progress(ctx)}
		sum, owner, err := l.Push(brief, in.LeaseID, src, dst, remote.PushOptions{Delete: in.Delete, Exclude: denied, Progress: so.add})
		complete := err == nil
		if err != nil {
			files, bytes := so.sum()
			if brief.Err() == nil || ctx.Err() != nil {
				return syncOut{}, ofLease(err, in.LeaseID)
			}
			if files == 0 {
				return syncOut{}, tooSlow(in.LeaseID)
			}
			sum = remote.PushSummary{Sent: files, SentBytes: bytes}
		}
		s := status(ctx, l, owner)
		out := syncOut{
			Complete: complete, RemoteDir: dst, Files: sum.Files, FilesSent: sum.Sent, BytesSent: sum.SentBytes, FilesDeleted: sum.Deleted,
			leaseBeside: besideOf(s), advice: adviceOf(s, say("run_command with lease_id %q and cwd %q", in.LeaseID, dst)),
		}
		if !complete {
			out.Next = then("sync_files", in.again(), "sync_files with the same arguments: it goes on with what is missing")
		}
		for _, skipped := range sum.Skipped[:min(len(sum.Skipped), skippedShown)] {
			out.Skipped = append(out.Skipped, short(fmt.Sprintf("%s: %s", skipped.Path, skipped.Reason), seen))
		}
		out.Skipped, _ = fit(out.Skipped, listRoom)
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
	return w
}

// sofar is how far a push has come, also for the one that breaks off.
type sofar struct {
	note *Reporter

	mu    sync.Mutex
	files int
	bytes int64
}

func (s *sofar) add(files int, bytes int64) {
	s.mu.Lock()
	s.files, s.bytes = files, bytes
	s.mu.Unlock()
	s.note.Note(fmt.Sprintf("%s sent, %d bytes", plural(files, "file"), bytes))
}

func (s *sofar) sum() (files int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files, s.bytes
}

// tooSlow is for a push of which not one file went out in time: calling again
// would begin with the same file.
func tooSlow(id lease.ID) error {
	return &lease.Error{
		Code: lease.CodeSSHUnreachable, Message: fmt.Sprintf("not one file could be sent within %d s", syncTime), LeaseID: id, Retryable: true,
		Why:  "the connection is slow, or a file is too large for one call",
		Next: "call again once; if it stays, leave large files out with .gpuleaseignore and download them on the machine with run_command",
	}
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
	return text + o.lines()
}
