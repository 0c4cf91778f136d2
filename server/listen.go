package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	idleTime     = 2 * time.Minute // of a connection between two requests
	maxHeader    = 64 << 10
	sessionsLook = 30 * time.Second
	// shutTime is how long the end may take once every context has ended.
	shutTime = 3 * time.Second
)

// ServeHTTP serves any number of clients on a listener, which it closes, until ctx
// ends, for which it returns nil. Then streams that only listen end at once, calls
// under way have StopGrace for their answers before their contexts end, and what is
// stuck even then is cut. Jobs on the machines go on.
func (s *Server) ServeHTTP(ctx context.Context, on net.Listener, config HTTP) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	w := newWeb(base, s, config)
	s.web.Store(w)
	conns := newConns(w.config.Connections)
	srv := &http.Server{
		Handler: w, BaseContext: func(net.Listener) context.Context { return base }, ConnState: conns.changed,
		ReadHeaderTimeout: w.config.HeaderTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // scanners and clients that went away
	}
	reaped := make(chan struct{})
	reapCtx, stop := context.WithCancel(ctx)
	go func() { defer close(reaped); w.reap(reapCtx) }()
	defer func() { stop(); <-reaped }()

	served := make(chan error, 1)
	go func() {
		if w.config.CertFile != "" {
			served <- srv.ServeTLS(on, w.config.CertFile, w.config.KeyFile)
			return
		}
		served <- srv.Serve(on)
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
	}
	defer s.watches.wait(w.config.HeaderTime)
	defer cut()
	return w.shut(srv, cut)
}

// shut ends the server in order.
func (w *web) shut(srv *http.Server, cut context.CancelFunc) error {
	grace := w.server.config.StopGrace
	timer := time.AfterFunc(grace, cut)
	defer timer.Stop()
	for _, id := range w.sessions.over(time.Now(), 0, func(string) bool { return false }) {
		w.endSession(id)
	}
	w.listeners.end(func(string) bool { return false })
	limit, cancel := context.WithTimeout(context.Background(), grace+shutTime)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		w.server.log.Error("calls still run at the end and are left behind", "err", err)
		return errors.Join(srv.Close())
	}
	w.server.log.Info("http ended")
	return nil
}

// reap ends sessions that nobody uses, and those of principals whose token was revoked.
func (w *web) reap(ctx context.Context) {
	every := min(sessionsLook, max(w.config.SessionIdle/2, time.Millisecond))
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, id := range w.sessions.over(time.Now(), w.config.SessionIdle, w.mayGoOn) {
			w.endSession(id)
		}
		w.listeners.end(w.mayGoOn)
		w.budgets.forget(w.mayGoOn)
		w.forgetTools()
	}
}

func (w *web) mayGoOn(principal string) bool {
	if w.config.Auth == nil {
		return true
	}
	if principal == "" { // let in while no token was needed
		needed, err := w.config.Auth.Required()
		return err != nil || !needed
	}
	ok, err := w.config.Auth.Has(principal)
	return ok || err != nil // what cannot be read for a moment ends no session; it lets no new request in
}
