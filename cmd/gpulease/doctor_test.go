package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/cmd/gpulease/doctor"
	"github.com/gpulease/gpulease/lambda/lambdatest"
	"github.com/gpulease/gpulease/lease"
)

// What doctor takes for the defaults of a launch is what a launch does.
func TestDoctorKnowsWhatLaunchesDo(t *testing.T) {
	t.Parallel()
	s := newSettings([]string{"HOME=" + t.TempDir()})
	s.stateDir, s.sshPort, s.principal, s.logLevel = t.TempDir(), 22, "default", "error"
	a, err := s.open(context.Background(), lease.GuardServer, io.Discard)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.close()) })
	require.Equal(t, doctor.ImageFamily, a.manager.ImageFamily)
	require.Equal(t, doctor.BootOne, a.manager.Timing.BootOne)
	require.Equal(t, doctor.BootMany, a.manager.Timing.BootMany)
	require.Equal(t, doctor.StopAllowance, a.manager.Timing.StopAllowance)
}

func TestDoctorCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lambdatest.Config{})
	file := filepath.Join(w.dir, "key")
	require.NoError(t, os.WriteFile(file, []byte(w.sim.APIKey()+"\n"), 0o644))
	good := w.env
	w.env = append(append([]string{}, good...), "LAMBDA_API_KEY=", "LAMBDA_API_KEY_FILE="+file)
	cmd := w.program("doctor", "--json")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var r struct {
		Finding doctor.Finding `json:"finding"`
		Checks  []doctor.Line  `json:"checks"`
	}
	require.NoError(t, json.Unmarshal(out, &r), "%s", out)
	require.Equal(t, doctor.Warn, r.Finding, "%s", out)
	require.Contains(t, r.Checks, doctor.Line{Check: "key", Class: doctor.Auth, Finding: doctor.OK, Text: "found in LAMBDA_API_KEY_FILE, accepted"})
	require.NotContains(t, string(out), w.sim.APIKey())
	for _, req := range w.sim.Requests() {
		require.Equal(t, http.MethodGet, req.Method)
	}
	require.NoDirExists(t, w.state(), "doctor makes no state")

	w.env = append(append([]string{}, good...), "LAMBDA_API_KEY=secret_wrong_0123456789")
	cmd = w.program("doctor")
	out, err = cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, doctor.Auth.ExitCode(), cmd.ProcessState.ExitCode(), "%s", out)
	require.Contains(t, string(out), "mend: make a key")
	require.NotContains(t, string(out), "secret_wrong")
	w.env = good
}
