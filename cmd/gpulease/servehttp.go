package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gpulease/gpulease/cmd/gpulease/issuer"
	"github.com/gpulease/gpulease/cmd/gpulease/metrics"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// webFlags are the flags of serve that only HTTP has a use for.
type webFlags struct {
	listen         string
	hosts, origins []string
	cert, key      string
	rate           float64
	sessions, all  int
	oauth          issuer.Config
}

var webFlagNames = []string{"listen", "allow-host", "allow-origin", "tls-cert", "tls-key", "rate", "sessions", "max-sessions", "oauth-issuer", "oauth-resource", "oauth-scope"}

func (w *webFlags) add(f *pflag.FlagSet) {
	f.StringVar(&w.listen, "listen", "127.0.0.1:7433", "http: address; other computers reach one that is not this computer's own, which needs tokens")
	f.StringArrayVar(&w.hosts, "allow-host", nil, "http: a name by which this server is called, beside localhost; may be repeated")
	f.StringArrayVar(&w.origins, "allow-origin", nil, "http: a web page that may use this server, as https://host; may be repeated")
	f.StringVar(&w.cert, "tls-cert", "", "http: certificate file (PEM); with --tls-key the server speaks https")
	f.StringVar(&w.key, "tls-key", "", "http: key file of the certificate (PEM)")
	f.Float64Var(&w.rate, "rate", 20, "http: requests a second of one principal, with bursts of ten times as many")
	f.IntVar(&w.sessions, "sessions", 64, "http: sessions of one principal; another one ends the one unused for longest")
	f.IntVar(&w.all, "max-sessions", 4096, "http: sessions of all principals together; another one is refused")
	f.StringVar(&w.oauth.Issuer, "oauth-issuer", "", "http: take access tokens (JWT) of this issuer, too: its URL")
	f.StringVar(&w.oauth.Resource, "oauth-resource", "", "http: the URL of this server's /mcp as clients know it, the audience of such tokens")
	f.StringVar(&w.oauth.Scope, "oauth-scope", "", "http: the scope that such tokens must have")
}

func (w *webFlags) check(f *pflag.FlagSet, http bool) error {
	for _, name := range webFlagNames {
		if !http && f.Changed(name) {
			return usageError(fmt.Errorf("--%s is for --transport http", name))
		}
	}
	if (w.cert == "") != (w.key == "") {
		return usageError(errors.New("--tls-cert and --tls-key go together"))
	}
	if w.cert != "" {
		if _, err := tls.LoadX509KeyPair(w.cert, w.key); err != nil {
			return usageError(fmt.Errorf("--tls-cert and --tls-key: %w", err))
		}
	}
	if (w.oauth.Issuer == "") != (w.oauth.Resource == "") || (w.oauth.Issuer == "" && w.oauth.Scope != "") {
		return usageError(errors.New("--oauth-issuer and --oauth-resource go together, and --oauth-scope with them"))
	}
	if w.rate <= 0 {
		return usageError(fmt.Errorf("--rate has to be above 0, not %g", w.rate))
	}
	if w.sessions <= 0 || w.all <= 0 {
		return usageError(fmt.Errorf("--sessions and --max-sessions have to be above 0, not %d and %d", w.sessions, w.all))
	}
	for i, origin := range w.origins {
		w.origins[i] = strings.TrimSuffix(origin, "/")
		if !strings.HasPrefix(origin, "http://") && !strings.HasPrefix(origin, "https://") {
			return usageError(fmt.Errorf("--allow-origin %q: want a scheme and a host, such as https://example.com", origin))
		}
	}
	for i, host := range w.hosts {
		w.hosts[i] = strings.ToLower(strings.Trim(host, "[]"))
	}
	return nil
}

// serveHTTP listens, unless it would let in who must not come in.
func (o *serving) serveHTTP(ctx context.Context, a *app, core server.Config, roots []string, stdout io.Writer) error {
	on, err := net.Listen("tcp", o.web.listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", o.web.listen, err), a.close())
	}
	auth, err := o.admission(ctx, a, on.Addr())
	if err != nil {
		return errors.Join(err, on.Close(), a.close())
	}
	mayAsk := auth.mayAsk
	a.mayAsk.Store(&mayAsk)
	if !server.IsLoopback(on.Addr().String()) && o.web.cert == "" {
		a.log.Warn("tokens cross the network unencrypted: give --tls-cert and --tls-key, unless a proxy in front speaks https")
	}
	if needed, err := auth.Required(); err == nil && !needed {
		a.log.Warn("every user of this computer may use this server: make a token with gpulease token create NAME")
	}
	var srv *server.Server
	measured := metrics.New(thisBuild().Version, measuring{a}, func() int { return srv.Sessions() })
	core.Called = measured.Call
	if srv, err = server.New(core); err != nil {
		return errors.Join(err, on.Close(), a.close())
	}
	config := server.HTTP{
		Auth: auth, OAuth: auth.oauth(o.web.oauth.Scope), Hosts: o.web.hosts, Origins: o.web.origins, CertFile: o.web.cert, KeyFile: o.web.key, Rate: o.web.rate,
		Sessions: o.web.sessions, AllSessions: o.web.all,
		Metrics: measured.Handler(),
		Healthy: func(context.Context) error { return a.broken },
		Tools:   func(principal string) ([]tools.Tool, error) { return o.toolsOf(a, principal, roots) },
	}
	return a.whileReconciling(ctx, func(ctx context.Context) error {
		scheme := "http"
		if o.web.cert != "" {
			scheme = "https"
		}
		url := scheme + "://" + on.Addr().String() + "/mcp"
		a.log.Info("serving", "url", url)
		if err := json.NewEncoder(stdout).Encode(map[string]string{"url": url}); err != nil {
			return errors.Join(fmt.Errorf("say that it is ready: %w", err), on.Close())
		}
		return srv.ServeHTTP(ctx, on, config)
	})
}

// measuring is what the metrics read.
type measuring struct{ a *app }

func (m measuring) Spend(ctx context.Context, principal string) (lease.Spending, error) {
	return m.a.manager.Spend(ctx, principal)
}

func (m measuring) Guards(ctx context.Context) ([]lease.Guard, error) { return m.a.store.Guards(ctx) }

// toolsOf are a principal's own tools: below each root it has a directory of its
// name, so that none reads what another one sends from there or brings home.
func (o *serving) toolsOf(a *app, principal string, roots []string) ([]tools.Tool, error) {
	own := make([]string, 0, len(roots))
	for _, root := range roots {
		dir := filepath.Join(root, principal)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of %s: %w", principal, err)
		}
		own = append(own, dir)
	}
	return o.tools(a, own)
}

func (s *settings) tokensPath() string { return filepath.Join(s.stateDir, "tokens.json") }
