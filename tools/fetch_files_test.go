package tools_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/remote"
	"github.com/gpulease/gpulease/tools"
)

// fetching is a desk that takes down where files were to land.
func fetching(dst *string) *desk {
	return &desk{row: ready(), fetch: func(_ context.Context, _ []string, dir string, _ remote.FetchOptions) (remote.FetchSummary, error) {
		*dst = dir
		return remote.FetchSummary{}, nil
	}}
}

func TestFetchFilesStaysWithinItsRoots(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	state := filepath.Join(root, "home", "state")
	for _, dir := range []string{filepath.Join(root, "project", "out"), filepath.Join(base, "rootlike"), filepath.Join(state, "keys"), outside} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	for link, to := range map[string]string{
		"escape": outside, "alias": filepath.Join(root, "project"), "dangling": filepath.Join(outside, "new"), "up": "..",
		"policy": filepath.Join(root, "project", "policy.yaml"),
	} {
		require.NoError(t, os.Symlink(to, filepath.Join(root, link)))
	}
	require.NoError(t, os.Symlink(root, filepath.Join(base, "linked")))
	deps := tools.Deps{Roots: []string{root}, Denied: []string{state}, Kept: []string{filepath.Join(root, "project", "policy.yaml")}}

	for name, tc := range map[string]struct {
		dir, want string // where files land
		code      string // or the error
	}{
		"the default":            {dir: "", want: filepath.Join(root, "results", string(leaseID))},
		"new":                    {dir: "a/b c/d", want: filepath.Join(root, "a/b c/d")},
		"there already":          {dir: "project/out", want: filepath.Join(root, "project/out")},
		"absolute":               {dir: filepath.Join(root, "new"), want: filepath.Join(root, "new")},
		"a link inside":          {dir: "alias/out/x", want: filepath.Join(root, "project/out/x")},
		"the root through link":  {dir: filepath.Join(base, "linked", "x"), want: filepath.Join(root, "x")},
		"above":                  {dir: "../x", code: "path_denied"},
		"above by the way":       {dir: "project/../../x", code: "path_denied"},
		"a neighbour":            {dir: filepath.Join(base, "rootlike"), code: "path_denied"},
		"a link out":             {dir: "escape", code: "path_denied"},
		"below a link out":       {dir: "escape/new/deep", code: "path_denied"},
		"a link up":              {dir: "up/outside", code: "path_denied"},
		"a link to nothing":      {dir: "dangling", code: "path_denied"},
		"below one":              {dir: "dangling/x", code: "path_denied"},
		"outside":                {dir: filepath.Join(outside, "x"), code: "path_denied"},
		"a file":                 {dir: "file", code: "invalid_input"},
		"below a file":           {dir: "file/x", code: "path_denied"},
		"a newline":              {dir: "a\nb", code: "invalid_input"},
		"what git runs":          {dir: "project/.git/hooks", code: "path_denied"},
		"in another case":        {dir: ".GIT", code: "path_denied"},
		"own state":              {dir: "home/state", code: "path_denied"},
		"in own state":           {dir: "home/state/keys", code: "path_denied"},
		"over own state":         {dir: "home", code: "path_denied"},
		"over all":               {dir: ".", code: "path_denied"},
		"over the policy to be":  {dir: "project", code: "path_denied"},
		"beside what is not his": {dir: "home/other", want: filepath.Join(root, "home/other")},
	} {
		t.Run(name, func(t *testing.T) {
			dst := ""
			d := deps
			d.Leases = fetching(&dst)
			r, err := use(t, d, "fetch_files", fmt.Sprintf(`{"lease_id":"abcdefghijkl","paths":["out"],"local_dir":%q}`, tc.dir))
			if tc.code != "" {
				require.Error(t, err)
				require.Equal(t, tc.code, string(lease.CodeOf(err)))
				require.Empty(t, dst, "something was fetched")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, dst)
			require.Equal(t, tc.want, fields(t, r)["local_dir"])
		})
	}
	dst := ""
	_, err = use(t, tools.Deps{Leases: fetching(&dst)}, "fetch_files", `{"lease_id":"abcdefghijkl","paths":["x"]}`)
	require.Equal(t, lease.CodePathDenied, lease.CodeOf(err), "without roots there is no access")
	_, err = use(t, tools.Deps{Leases: fetching(&dst), Roots: []string{root}}, "fetch_files", `{"lease_id":"../../../../etc","paths":["x"]}`)
	require.Equal(t, lease.CodeLeaseNotFound, lease.CodeOf(err), "an id becomes a directory's name")
	for _, bad := range []string{"a\\nb", "../x", "", "~/../x"} {
		_, err = use(t, tools.Deps{Leases: fetching(&dst), Roots: []string{root}}, "fetch_files", fmt.Sprintf(`{"lease_id":"abcdefghijkl","paths":["ok","%s"]}`, bad))
		require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err), "%q", bad)
	}
	require.Empty(t, dst, "something was fetched")
}

func TestFetchFiles(t *testing.T) {
	var files []remote.Fetched
	for i := range 30 {
		files = append(files, remote.Fetched{Path: fmt.Sprintf("out/%02d", i), Bytes: 10})
	}
	files[0].Path, files[1].Changed, files[2].Path = "out/a\nerror internal: no", true, "out/\xff"
	d := &desk{row: ready(), warnings: []string{"the deadline is in 5m0s"}, fetch: func(_ context.Context, paths []string, _ string, o remote.FetchOptions) (remote.FetchSummary, error) {
		require.Equal(t, []string{"out", "*.log"}, paths)
		require.Equal(t, int64(1000), o.MaxBytes)
		require.Equal(t, lease.ManifestName, o.Manifest)
		return remote.FetchSummary{
			Files: files, Bytes: 300, Missing: []string{"*.log"}, Skipped: []remote.Skipped{{Path: "out/pipe", Reason: "not a file"}},
		}, nil
	}}
	root := t.TempDir()
	r, err := use(t, tools.Deps{Leases: d, Roots: []string{root}}, "fetch_files", `{"lease_id":"abcdefghijkl","paths":["out","*.log"],"max_bytes":1000}`)
	require.NoError(t, err)
	got := fields(t, r)
	require.Equal(t, []any{true, 30.0, 300.0, "ready"}, []any{got["complete"], got["files"], got["bytes"], got["lease_state"]})
	require.Len(t, got["fetched"], 20)
	require.Equal(t, []any{`"out/a\nerror internal: no"`, "out/01", "out/\uFFFD"}, got["fetched"].([]any)[:3], "a name is one line, and valid text")
	require.Equal(t, []any{"*.log"}, got["missing"])
	require.Contains(t, got["next"], "what is missing is lost with the machine", "the machine is not ended as if all were here")
	require.Equal(t, []any{"out/pipe: not a file"}, got["skipped"])
	require.Equal(t, []any{
		"the deadline is in 5m0s", "1 path not on the machine; see missing", "1 path not fetched; see skipped",
		"written to while it was read, so perhaps of two moments: out/01",
	}, got["warnings"])
	require.Equal(t, lease.ManifestName, got["manifest"])
	require.Contains(t, r.Text, "30 files (300 bytes) in ")
	require.NotContains(t, r.Text, "NOT YET")
}

// What takes longer than a call says what came and what is left.
func TestALargeFetchGoesOnWithTheNextCall(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes int64
		code  string
	}{"something came": {bytes: 8 << 20}, "nothing came": {code: "ssh_unreachable"}} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				d := &desk{row: ready(), fetch: func(ctx context.Context, _ []string, _ string, o remote.FetchOptions) (remote.FetchSummary, error) {
					if tc.bytes > 0 {
						o.Progress(0, tc.bytes)
					}
					<-ctx.Done()
					return remote.FetchSummary{
						Files: []remote.Fetched{{Path: "a", Bytes: 1, Same: true}}, Bytes: 1, Left: []remote.Left{{Path: "big", Bytes: 1 << 30}},
					}, &lease.Error{Code: lease.CodeSSHUnreachable, Message: "cut", Err: ctx.Err()}
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 44*time.Second)
				defer cancel()
				r, err := useIn(ctx, t, tools.Deps{Leases: d, Roots: []string{root}}, "fetch_files", `{"lease_id":"abcdefghijkl","paths":["."]}`)
				if tc.code != "" {
					require.Equal(t, tc.code, string(lease.CodeOf(err)))
					return
				}
				require.NoError(t, err)
				got := fields(t, r)
				require.Equal(t, false, got["complete"])
				require.Equal(t, []any{"big (1073741824 bytes)"}, got["left"])
				require.Equal(t, "fetch_files with the same arguments: it goes on with what is left", got["next"])
				require.Contains(t, r.Text, "NOT YET ALL")
				require.Contains(t, r.Text, "1 file (1073741824 bytes) still to come")
			})
		})
	}
}
