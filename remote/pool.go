package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Config of a [Pool]. The zero value of each field means its default.
type Config struct {
	Logger           *slog.Logger     // nothing is logged without one
	Keepalive        time.Duration    // how often an idle connection is asked for a sign of life; 15 s
	KeepaliveTimeout time.Duration    // half of how long to wait for that sign; 10 s
	DialTimeout      time.Duration    // for TCP, handshake and authentication together; 15 s
	ReconnectFor     time.Duration    // how long a call whose connection broke goes on trying for a new one; 60 s
	MaxSessions      int              // commands at once on a connection; 4
	Now              func() time.Time // time.Now
	// Near is the round trip below which a machine is in the same network, where to compress files takes longer than to carry
	// them; 2 ms. Negative: no machine is.
	Near time.Duration
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Keepalive <= 0 {
		c.Keepalive = 15 * time.Second
	}
	if c.KeepaliveTimeout <= 0 {
		c.KeepaliveTimeout = 10 * time.Second
	}
	if c.DialTimeout <= 0 {
		c.DialTimeout = 15 * time.Second
	}
	if c.ReconnectFor <= 0 {
		c.ReconnectFor = 60 * time.Second
	}
	if c.MaxSessions <= 0 {
		c.MaxSessions = 4
	}
	if c.Near == 0 {
		c.Near = 2 * time.Millisecond
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Pool keeps one connection for each machine. Safe for concurrent use. Close it.
type Pool struct {
	config Config
	ctx    context.Context // ends at Close; the dials' parent
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	hashes hashes // of local files

	mu       sync.Mutex
	closed   bool
	entries  map[string]*entry
	forwards []*Forward
}

// entry is what the pool knows of one Target.Key: a connection, or a dial that others wait for too.
type entry struct {
	conn *conn
	dial *dialing
	met  bool // there has been a connection with this key
	// heard is when the machine last answered on the connection before conn, in unix nanoseconds.
	heard int64
}

type dialing struct {
	target Target
	cancel context.CancelFunc
	done   chan struct{}
	conn   *conn // these two are set before done is closed
	err    error
}

// NewPool makes a pool. It connects to nothing yet.
func NewPool(c Config) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	c = c.withDefaults()
	return &Pool{config: c, ctx: ctx, cancel: cancel, hashes: hashes{now: c.Now}, entries: map[string]*entry{}}
}

// Forget cuts the connection kept for key and closes its forwards. Calls under way on it end with [ErrConnLost] or dial
// again. Jobs run on.
func (p *Pool) Forget(key string) {
	p.mu.Lock()
	e := p.entries[key]
	delete(p.entries, key)
	p.forwards = slices.DeleteFunc(p.forwards, func(f *Forward) bool {
		if f.target.Key == key {
			f.end()
		}
		return f.target.Key == key
	})
	p.mu.Unlock()
	e.end()
}

// Close cuts all connections and waits for everything that worked on them. Jobs run on.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	entries, forwards := p.entries, p.forwards
	p.entries, p.forwards = map[string]*entry{}, nil
	p.mu.Unlock()
	p.cancel()
	for _, f := range forwards {
		f.end()
	}
	for _, e := range entries {
		e.end()
	}
	p.tasks.Wait()
	return nil
}

func (e *entry) end() {
	if e == nil {
		return
	}
	if e.dial != nil {
		e.dial.cancel()
	}
	if e.conn != nil {
		e.conn.close()
	}
}

// connect returns the live connection for t, or makes one. Callers at the same time share one dial, which does not
// end with the first caller's context.
func (p *Pool) connect(ctx context.Context, t Target) (*conn, error) {
	for {
		n, d, err := p.find(t)
		if err != nil {
			return nil, err
		}
		if n != nil {
			if n.quiet() > 2*p.config.Keepalive && !n.ping(p.config.KeepaliveTimeout) {
				p.config.Logger.Info("connection went dark", "machine", t)
				n.close()
				continue
			}
			return n, nil
		}
		select {
		case <-d.done:
			return d.conn, d.err
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %s: %w", t.Addr, ctx.Err())
		}
	}
}

// find returns either a connection or a dial to wait for.
func (p *Pool) find(t Target) (*conn, *dialing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, ErrClosed
	}
	e := p.entries[t.Key]
	if e == nil {
		e = &entry{}
		p.entries[t.Key] = e
	}
	if e.conn != nil {
		if e.conn.alive() && e.conn.target.same(t) {
			return e.conn, nil, nil
		}
		p.tasks.Go(e.conn.close) // closing may block on a dark connection
		e.heard, e.conn = e.conn.heard.Load(), nil
	}
	if e.dial != nil && !e.dial.target.same(t) {
		e.dial.cancel()
		e.dial = nil
	}
	if e.dial == nil {
		ctx, cancel := context.WithCancel(p.ctx)
		d := &dialing{target: t, cancel: cancel, done: make(chan struct{})}
		e.dial = d
		p.tasks.Go(func() { p.dial(ctx, e, d) })
	}
	return nil, e.dial, nil
}

func (p *Pool) dial(ctx context.Context, e *entry, d *dialing) {
	defer d.cancel()
	client, err := dial(ctx, d.target, p.config.DialTimeout)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(d.done)
	current := !p.closed && p.entries[d.target.Key] == e && e.dial == d
	if e.dial == d {
		e.dial = nil
	}
	if err != nil {
		d.err = err
		return
	}
	d.conn = newConn(d.target, client, p.config)
	p.tasks.Go(d.conn.wait)
	if !current {
		// Forgotten while it was made.
		p.tasks.Go(d.conn.close)
		d.conn, d.err = nil, fmt.Errorf("connect to %s: %w", d.target.Addr, ErrConnLost)
		return
	}
	e.conn, e.met = d.conn, true
	p.config.Logger.Debug("connected", "machine", d.target)
}

// SilentError says that a machine which has answered before was not heard any more.
type SilentError struct{ For time.Duration }

func (e *SilentError) Error() string {
	return fmt.Sprintf("the machine was last heard %s ago", e.For.Round(time.Second))
}

// sayHeard adds a [SilentError] to an error, if the machine was ever heard.
func (p *Pool) sayHeard(key string, err error) error {
	if ago, met := p.silent(key); met {
		return fmt.Errorf("%w; %w", err, &SilentError{ago})
	}
	return err
}

// silent is how long the machine has not been heard, if it ever was.
func (p *Pool) silent(key string) (ago time.Duration, met bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[key]
	if e == nil || !e.met {
		return 0, false
	}
	heard := e.heard
	if e.conn != nil {
		heard = e.conn.heard.Load()
	}
	return max(0, time.Duration(p.config.Now().UnixNano()-heard)), true
}

// longSilent is how long a machine that works is never silent: keep-alives are closer together.
const longSilent = 20 * time.Second

// ended is the error of a call whose context has ended. It says so where the machine has been silent for long by then.
func (p *Pool) ended(ctx context.Context, t Target) error {
	err := fmt.Errorf("%s: %w", t.Addr, ctx.Err())
	if ago, _ := p.silent(t.Key); ago >= longSilent {
		return fmt.Errorf("%w; %w", err, &SilentError{ago})
	}
	return err
}

// met reports whether the machine has answered before.
func (p *Pool) met(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[key]
	return e != nil && e.met
}

// steady is how long a connection must have carried a call for its break to count as a new one.
const steady = 2 * time.Second

// with calls f on a connection, and again on a new one when that broke. f must be safe to repeat. It gives up when
// there has been no connection that held for ReconnectFor; a long call may survive any number of breaks. A first
// connect that fails is not tried again: the caller decides about that.
func (p *Pool) with(ctx context.Context, t Target, f func(*conn) error) error {
	if err := t.validate(); err != nil {
		return err
	}
	const firstDelay = 100 * time.Millisecond
	var since time.Time // of the first failure in a row
	delay := firstDelay
	still := p.silence(ctx)
	for broke := p.met(t.Key); ; {
		n, err := still.connect(ctx, p, t)
		if err == nil {
			begun := p.config.Now()
			stop := still.watch(n)
			err = f(n)
			stop()
			if p.config.Now().Sub(begun) > steady {
				since, delay = time.Time{}, firstDelay
			}
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return p.ended(ctx, t)
		case errors.Is(err, ErrConnLost):
			broke = true
		case errors.Is(err, ErrUnreachable) && broke:
		default:
			return err
		}
		now := p.config.Now()
		if since.IsZero() {
			since = now
		}
		if now.Sub(since) > p.config.ReconnectFor || still.over(now) {
			return p.sayHeard(t.Key, err)
		}
		p.config.Logger.Info("connection broke, trying again", "machine", t, "err", err)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return p.ended(ctx, t)
		case <-p.ctx.Done():
			timer.Stop()
			return ErrClosed
		}
		delay = min(2*delay, 5*time.Second)
	}
}
