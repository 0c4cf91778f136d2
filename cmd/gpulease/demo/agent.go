package demo

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gpulease/gpulease/cmd/gpulease/agent"
	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// serverEnv is what the server gets of our environment: nothing that could
// point it at a real account.
func serverEnv(work string, cloud *lambdatest.Server) []string {
	keep := map[string]bool{"PATH": true, "HOME": true, "LANG": true, "TMPDIR": true, "USER": true, "SystemRoot": true, "USERPROFILE": true, "GOCOVERDIR": true}
	var env []string
	for _, kv := range os.Environ() {
		if name, _, ok := strings.Cut(kv, "="); ok && keep[name] {
			env = append(env, kv)
		}
	}
	return append(env,
		"GPULEASE_API_URL="+cloud.URL(),
		"GPULEASE_SSH_PORT="+strconv.Itoa(cloud.SSHPort()),
		"LAMBDA_API_KEY="+cloud.APIKey(),
		"GPULEASE_STATE_DIR="+filepath.Join(work, "state"),
		"GPULEASE_POLICY="+filepath.Join(work, "policy.yaml"),
		"GPULEASE_PRINCIPAL=demo",
	)
}

func newAgent(ctx context.Context, o Options, work string, cloud *lambdatest.Server) (*agent.Agent, error) {
	return agent.Start(ctx, agent.Options{
		Binary: o.Binary, Dir: o.Project, Env: serverEnv(work, cloud), Log: filepath.Join(work, "server.log"), Name: "gpulease-demo", Version: o.Version, Detach: o.Detach,
	})
}
