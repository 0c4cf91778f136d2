package tools

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/gpulease/gpulease/lease"
)

// resultsName is the directory below the first root that results come home to,
// each lease's into one of its own.
const resultsName = "results"

// resultsDir is where the results of a lease go. Links are followed first: one
// in the root must not lead out of it.
func resultsDir(id string, roots, denied []string) (string, error) {
	if len(roots) == 0 {
		return "", pathDenied(resultsName, "this server gives no access to local files, so no results can be brought home", nil)
	}
	root := resolved(roots[0])
	dir := filepath.Join(root, resultsName)
	if _, err := os.Lstat(dir); err == nil {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || !within(real, roots) {
			return "", pathDenied(dir, "results come home into it, and it is a link that leads out of "+roots[0], nil)
		}
		if info, err := os.Stat(real); err != nil || !info.IsDir() {
			return "", pathDenied(dir, "results come home into it, and it is no directory", nil)
		}
		dir = real
	}
	if inside(dir, denied) {
		return "", pathDenied(dir, "it lies within gpulease's own state or settings", nil)
	}
	return filepath.Join(dir, id), nil
}

// nameResults adds paths to what is brought home before a lease's end. What
// cannot be done any more is a warning: it must not keep the lease from its end.
func nameResults(ctx context.Context, c Changer, id lease.ID, paths, roots, denied []string) (warning string, err error) {
	if len(paths) == 0 {
		return "", nil
	}
	dir, err := resultsDir(string(id), roots, denied)
	if err != nil {
		return "", err
	}
	_, err = c.SetResults(ctx, id, paths, dir)
	var known *lease.Error
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, &known) && (known.Code == lease.CodeInvalidInput || known.Code == lease.CodeLeaseNotFound || known.Code == lease.CodePathDenied):
		return "", err
	}
	return "the results named now are not brought home: " + Explain(err, nil).Message, nil
}
