package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/remote"
)

// app is everything wired together.
type app struct {
	manager *lease.Manager
	account *account
	pool    *remote.Pool
	store   lease.Store
	broken  error // why the ledger cannot be used, if it cannot
	guard   string
	log     *slog.Logger
	closers []func() error
	key     atomic.Pointer[lambda.Key] // once it is known
	joins   joinKeys
	mayAsk  atomic.Pointer[func(principal string) bool] // where principals come by tokens

	visits   bool       // this process guards by coming again and again, so its end says nothing
	ensuring sync.Mutex // held while this process sees to it that a keeper runs
	offering sync.Mutex
	offered  time.Time         // when this process last started a keeper beside an older one
	started  func(what string) // is told that a keeper was missing and has been started
}

// hooks are nil in the product. Tests, which run this program as processes of
// their own, make them die at a named step, and let many of them share a
// simulated account that has no rate limit.
var hooks struct {
	crash func(point string)
	pace  func(lambda.PacerConfig) lambda.PacerConfig
}

func (s *settings) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, usageError(fmt.Errorf("GPULEASE_LOG_LEVEL (or --log-level): %w", err))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: readable})), nil
}

// readable writes durations as "4.373s", where JSON has a number of nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().Round(time.Millisecond).String())
	}
	return a
}

// open wires the program. A ledger that cannot be used is no error here: the
// server starts and says at each call what is wrong, since agent hosts hide
// what a server prints before it dies.
func (s *settings) open(ctx context.Context, role string, stderr io.Writer) (*app, error) {
	return s.openGuarded(ctx, role, false, stderr)
}

// openGuarded is open for a process that launches and may end before its leases
// do: with keep, a keeper is started before each launch, and again if it died.
func (s *settings) openGuarded(ctx context.Context, role string, keep bool, stderr io.Writer) (*app, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	log, err := s.logger(stderr)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	home, err := s.homeName()
	if err != nil {
		return nil, err
	}
	a := &app{log: log, started: func(what string) { log.Info(what) }, guard: guardName(role)}
	lead := func(string) (bool, error) { return false, a.broken } // without a ledger nobody leads
	yield := func() {}
	db, err := ledger.Open(ctx, s.ledgerPath, ledger.Options{Now: time.Now, Rand: rand.Reader, Logger: log, Later: true})
	if err != nil {
		log.Error("the ledger cannot be used: nothing will be launched", "ledger", ledger.Redact(s.ledgerPath), "err", err)
		a.store, a.broken = lease.BrokenStore(err), err
	} else {
		leader := db.Leader()
		a.store, lead, yield = db, leader.Try, leader.Yield
		a.closers = append(a.closers, db.Close, leader.Close)
	}
	a.account = &account{connect: func(ctx context.Context) (*lambda.Client, error) {
		key, err := s.apiKey(ctx)
		if err != nil {
			return nil, err
		}
		a.key.Store(&key)
		opts := []lambda.Option{lambda.WithBaseURL(s.apiURL), lambda.WithUserAgent("gpulease/" + version), lambda.WithLogger(log)}
		if db != nil {
			pace := lambda.PacerConfig{Gate: db.Gate(key.Account()), Logger: log}
			if hooks.pace != nil {
				pace = hooks.pace(pace)
			}
			opts = append(opts, lambda.WithLimiter(lambda.NewPacer(pace)))
		}
		return lambda.New(key, opts...)
	}}
	pool := remote.NewPool(remote.Config{Logger: log})
	a.pool = pool
	a.closers = append(a.closers, pool.Close)
	host := newHosting(s.stateDir)
	a.closers = append(a.closers, host.close)
	var guard func(context.Context) error
	if keep {
		guard = func(ctx context.Context) error {
			started, err := s.ensureKeeper(ctx, a)
			if started && err == nil {
				a.started("no keeper was running; one has been started")
			}
			return err
		}
	} else if role == lease.GuardReap {
		guard = func(ctx context.Context) error { return s.keepOwn(ctx, a) }
	}
	a.manager, err = lease.New(lease.Config{
		Store: a.store, Cloud: a.account, Machine: pool, Keys: lease.KeyDir(filepath.Join(s.stateDir, "keys")), Begun: lease.JobDir(filepath.Join(s.stateDir, "jobs")), Policy: s.policySource(),
		Now: time.Now, Rand: rand.Reader, Principal: s.principal, SSHPort: s.sshPort,
		Lead: lead, Yield: yield, Home: home, Host: host.try,
		MayAsk: func(principal string) bool {
			may := a.mayAsk.Load()
			return may == nil || (*may)(principal)
		},
		Tailnet: tailnetAccess{s, a.joins.add}, EnsureGuard: guard, NoLaunch: guard == nil && role != lease.GuardServer && role != lease.GuardKeeper,
		Guard: a.guard, Logger: log, Crash: hooks.crash,
	})
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// guardName is what this process is called in the ledger's list of guards. A
// reaper comes again and again, as another process each time.
func guardName(role string) string {
	if role == lease.GuardReap {
		return role + " " + hostname()
	}
	return fmt.Sprintf("%s %d", role, os.Getpid())
}

func (a *app) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	return errors.Join(errs...)
}

// redact removes the keys from a text, wherever both may have come from. It
// is the last of several nets: no text should have held the key to begin with.
func (a *app) redact(text string) string {
	for _, secret := range a.secrets() {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}

// secrets are what no output of a job is to show.
func (a *app) secrets() []string {
	secrets := a.joins.list()
	if key := a.key.Load(); key != nil {
		secrets = append(secrets, key.Reveal())
	}
	return secrets
}

// whileReconciling runs f while this process reconciles (or stands by, if
// another one leads), and ends in order afterwards.
func (a *app) whileReconciling(ctx context.Context, f func(ctx context.Context) error) error {
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- a.manager.Run(runCtx) }()
	err := f(ctx)
	// A launch call under way is waited for: its outcome is about to be known.
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	closeErr := a.manager.Close(closeCtx)
	stop()
	runErr := <-done
	if !a.visits {
		a.guardNoMore(context.WithoutCancel(ctx))
	}
	return errors.Join(err, closeErr, runErr, a.close())
}

// guardNoMore says in the ledger that this process is no guard any more, if it was one: else it
// would be taken for one until it has been silent for a while.
func (a *app) guardNoMore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastWord)
	defer cancel()
	guards, err := a.store.Guards(ctx)
	if err == nil && slices.ContainsFunc(guards, func(g lease.Guard) bool { return g.Name == a.guard }) {
		err = a.store.Beat(ctx, a.guard, time.Time{})
	}
	if err != nil {
		a.log.Warn("that this process guards no more could not be written down", "err", err)
	}
}

const lastWord = 3 * time.Second

const closeTimeout = 130 * time.Second // a launch call and what goes before it
