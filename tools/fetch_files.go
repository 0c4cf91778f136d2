package tools

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
)

type fetchIn struct {
	LeaseID  lease.ID `json:"lease_id"`
	Paths    []string `json:"paths" jsonschema:"minItems=1,maxItems=100" jsonschema_description:"Files, directories, patterns (* and **)."`
	LocalDir string   `json:"local_dir,omitempty" jsonschema_description:"Default: results/<lease>."`
	MaxBytes int64    `json:"max_bytes,omitempty" jsonschema:"minimum=1" jsonschema_description:"Default: 2 GiB."`
}

type fetchOut struct {
	Complete    bool      `json:"complete"`
	LocalDir    string    `json:"local_dir"`
	Files       int       `json:"files"`
	Bytes       int64     `json:"bytes" jsonschema:"-"`
	Fetched     []string  `json:"fetched,omitempty"`
	Tests       *testsOut `json:"tests,omitempty" jsonschema:"-"`
	Missing     []string  `json:"missing,omitempty" jsonschema:"-"`
	Left        []string  `json:"left,omitempty" jsonschema:"-"`
	Skipped     []string  `json:"skipped,omitempty" jsonschema:"-"`
	Manifest    string    `json:"manifest,omitempty" jsonschema:"-"`
	leaseBeside `jsonschema:"-"`
	advice
}

// pathsShown and a quarter of listRoom bound each list of paths in an answer; the manifest has them all.
const pathsShown = 20

func fetchFiles(l interface {
	Reader
	Worker
}, roots, denied, kept []string, hidden *secrets) Tool {
	return New(Def{
		Name:  "fetch_files",
		Title: "Bring files home from a lease",
		Description: "Copies files from a lease to the server's computer, verified by hash; paths keep their names below local_dir. " +
			"While complete is false, call again.",
		Annotations: Annotations{Destructive: true, Idempotent: true},
	}, func(ctx context.Context, in fetchIn) (fetchOut, error) {
		dir, err := homeFor(in, roots, denied, kept)
		if err != nil {
			return fetchOut{}, err
		}
		brief, cancel := context.WithTimeout(ctx, Wait(ctx, transferTime))
		defer cancel()
		so := sofar{note: Progress(ctx), verb: "fetched"}
		sum, owner, err := l.Fetch(brief, in.LeaseID, in.Paths, dir, remote.FetchOptions{
			MaxBytes: in.MaxBytes, Manifest: lease.ManifestName, Progress: so.add,
		})
		if err != nil {
			if brief.Err() == nil || ctx.Err() != nil {
				return fetchOut{}, ofLease(err, in.LeaseID)
			}
			if files, bytes := so.sum(); files == 0 && bytes == 0 {
				return fetchOut{}, tooSlow(in.LeaseID, err, "nothing could be brought home", "name fewer or smaller files; or pack them on the machine with run_command")
			}
		}
		s := status(ctx, l, owner)
		out := fetchOut{
			Complete: err == nil, LocalDir: dir, Files: len(sum.Files), Bytes: sum.Bytes, Manifest: lease.ManifestName,
			Missing: shownPaths(sum.Missing, asIs), Left: shownPaths(sum.Left, leftLine), Skipped: shownPaths(sum.Skipped, skippedLine),
			Fetched:     shownPaths(sum.Files, func(f remote.Fetched) string { return f.Path }),
			leaseBeside: besideOf(s), advice: adviceOf(s, nextAfterFetch(in, sum)),
		}
		out.Tests = testsFetched(ctx, dir, sum.Files, func(text string) string { return string(hidden.mask(owner.ID, []byte(text))) })
		out.Warnings = append(slices.Clone(out.Warnings), fetchWarnings(sum)...)
		if err != nil {
			out.Next = then("fetch_files", in.again(), "fetch_files with the same arguments: it goes on with what is left")
		}
		return out, nil
	})
}

// nextAfterFetch does not send an agent on to the end of the machine while what it asked for is not here.
func nextAfterFetch(in fetchIn, sum remote.FetchSummary) step {
	if len(sum.Missing) == 0 {
		return say("run_command for more; stop_lease when you are done")
	}
	return say("what is missing is lost with the machine; run_command with find shows where it is (paths count from the home directory, variables are not replaced); fetch_files again brings it home")
}

// again are the arguments of the same call.
func (in fetchIn) again() with {
	w := with{"lease_id": in.LeaseID, "paths": in.Paths}
	if in.LocalDir != "" {
		w["local_dir"] = in.LocalDir
	}
	if in.MaxBytes > 0 {
		w["max_bytes"] = in.MaxBytes
	}
	return w
}

// homeFor is the local directory that the files of a call go to.
func homeFor(in fetchIn, roots, denied, kept []string) (string, error) {
	if !lease.ValidID(string(in.LeaseID)) {
		return "", &lease.Error{Code: lease.CodeLeaseNotFound, Message: fmt.Sprintf("there is no lease %q", clip(string(in.LeaseID), 40))}
	}
	for _, p := range in.Paths {
		if err := remote.CheckPath(p); err != nil {
			return "", &lease.Error{
				Code: lease.CodeInvalidInput, Message: fmt.Sprintf("the path %s cannot be fetched", quote(p)), Why: err.Error(), LeaseID: in.LeaseID,
				Next: "give it below the home directory, or as an absolute path, without control characters; a pattern (* or ?) finds odd names",
			}
		}
	}
	if in.LocalDir == "" {
		return resultsDir(string(in.LeaseID), roots, denied)
	}
	return confineNew(in.LocalDir, roots, denied, kept)
}

// fetchWarnings say what is not as it was asked for.
func fetchWarnings(sum remote.FetchSummary) []string {
	var said []string
	if n := len(sum.Missing); n > 0 {
		said = append(said, plural(n, "path")+" not on the machine; see missing")
	}
	if n := len(sum.Left); n > 0 {
		var bytes int64
		for _, f := range sum.Left {
			bytes += f.Bytes
		}
		said = append(said, fmt.Sprintf("%s (%d bytes) still to come", plural(n, "file"), bytes))
	}
	if n := len(sum.Skipped); n > 0 {
		said = append(said, plural(n, "path")+" not fetched; see skipped")
	}
	var changed []string
	for _, f := range sum.Files {
		if f.Changed {
			changed = append(changed, f.Path)
		}
	}
	if len(changed) > 0 {
		said = append(said, "written to while it was read, so perhaps of two moments: "+strings.Join(shownPaths(changed, asIs), ", "))
	}
	return said
}

// shownPaths are the first items of a list of paths, as one line of text each.
func shownPaths[T any](list []T, line func(T) string) []string {
	var shown []string
	for _, it := range list[:min(len(list), pathsShown)] {
		text := valid(line(it))
		if strings.ContainsFunc(text, unicode.IsControl) {
			text = strconv.Quote(text) // a name may hold anything, also what looks like a line of ours
		}
		shown = append(shown, short(text, seen))
	}
	shown, _ = fit(shown, listRoom/4)
	return shown
}

func asIs(s string) string { return s }

func leftLine(f remote.Left) string { return fmt.Sprintf("%s (%d bytes)", f.Path, f.Bytes) }

func skippedLine(s remote.Skipped) string { return s.Path + ": " + s.Reason }

// Text is what is here now.
func (o fetchOut) Text() string {
	text := fmt.Sprintf("%s (%d bytes) in %s", plural(o.Files, "file"), o.Bytes, o.LocalDir)
	if !o.Complete {
		text += ", NOT YET ALL"
	}
	if len(o.Missing) > 0 {
		text += "\nmissing: " + strings.Join(o.Missing, ", ")
	}
	return text + o.Tests.line() + o.lines()
}
