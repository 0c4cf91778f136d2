package lambdatest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// ready is the line that a simulator says when it is.
type ready struct {
	APIURL  string `json:"api_url"`
	SSHPort int    `json:"ssh_port"`
	APIKey  string `json:"api_key"`
}

// run starts Run and returns what it says, and a function that ends it.
func run(t *testing.T, o lambdatest.Options) (ready, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := lambdatest.Run(ctx, o, in)
		in.CloseWithError(io.EOF)
		done <- err
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(t, err)
	var r ready
	require.NoError(t, json.Unmarshal(line, &r))
	return r, func() error { cancel(); return <-done }
}

func TestRun(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	o := lambdatest.Options{BootTime: -1, StateFile: filepath.Join(dir, "state.json"), Dir: filepath.Join(dir, "machines"), Newer: true}
	r, stop := run(t, o)
	require.Regexp(t, `^http://127\.0\.0\.1:\d+/api/v1$`, r.APIURL)
	require.NotZero(t, r.SSHPort)
	require.Contains(t, r.APIKey, "secret_sim_")

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(r ready, path string) string {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.APIURL+path, nil)
		require.NoError(t, err)
		req.SetBasicAuth(r.APIKey, "")
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(body)
	}
	require.JSONEq(t, `{"data":[],"page_token":null}`, get(r, "/instances"))
	require.NoError(t, stop())
	_, err := client.Get(r.APIURL)
	require.Error(t, err)
	entries, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Empty(t, entries)

	again, stop := run(t, o)
	require.Equal(t, r.APIKey, again.APIKey, "the state file has it")
	require.Equal(t, r.SSHPort, again.SSHPort)
	require.NoError(t, stop())
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	for name, o := range map[string]lambdatest.Options{
		"no catalogue": {CatalogFile: "/nonexistent.json"},
		"no scenario":  {ScenarioFile: "/nonexistent.yaml"},
		"no address":   {Listen: "nowhere:99999"},
		"no state":     {StateFile: "/nonexistent/state.json"},
	} {
		require.Error(t, lambdatest.Run(t.Context(), o, io.Discard), name)
	}
}

// Without sockets the simulator works in a bubble where time is simulated too.
func TestTransportInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := lambdatest.New(lambdatest.Config{BootTime: 5 * time.Minute})
		require.NoError(t, err)
		defer s.Close()
		id, err := s.Launch(lambdatest.Order{Type: "gpu_1x_a10", Region: "us-east-1"})
		require.NoError(t, err)
		client := &http.Client{Transport: s.Transport()}
		status := func() string {
			req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL()+"/instances/"+id, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+s.APIKey())
			resp, err := client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			var b struct{ Data struct{ Status string } }
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&b))
			return b.Data.Status
		}
		require.Equal(t, "booting", status())
		time.Sleep(5 * time.Minute)
		require.Equal(t, "active", status())
		s.Inject(lambdatest.Fault{Delay: time.Hour})
		before := time.Now()
		require.Equal(t, "active", status())
		require.Equal(t, time.Hour, time.Since(before))
		time.Sleep(time.Minute)
		require.Equal(t, int64(61), s.Bill().Lines[0].Minutes)
	})
}

func TestCloseTwice(t *testing.T) {
	s, err := lambdatest.New(lambdatest.Config{SSHHosts: true})
	require.NoError(t, err)
	require.NoError(t, s.Listen("127.0.0.1:0"))
	require.Error(t, s.Listen("127.0.0.1:0"), "it listens already")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.Error(t, s.Listen("127.0.0.1:0"))
}

// failing is a testing.T that counts.
type failing struct {
	*testing.T
	fatal int
}

func (f *failing) Fatalf(string, ...any) { f.fatal++; panic(f) }

func TestStartFailsTheTest(t *testing.T) {
	f := &failing{T: t}
	require.PanicsWithValue(t, f, func() {
		lambdatest.Start(f, lambdatest.Config{StateFile: "/nonexistent/state.json"})
	})
	require.Equal(t, 1, f.fatal)
}
