package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"

	"github.com/gpulease/gpulease/cmd/gpulease/issuer"
	"github.com/gpulease/gpulease/cmd/gpulease/token"
	"github.com/gpulease/gpulease/server"
)

// admission lets in who has a token of ours, or one of an external issuer. On this
// computer's own address none is needed until the first of ours is made, if there is
// no issuer; from then on always.
type admission struct {
	tokens token.Store
	issuer *issuer.Issuer // nil for none
	log    *slog.Logger
	always bool
	seen   atomic.Bool
}

// admission refuses an address that others reach while nobody could be let in.
func (o *serving) admission(ctx context.Context, a *app, address net.Addr) (*admission, error) {
	d := &admission{tokens: token.Store{Path: o.s.tokensPath()}, log: a.log}
	d.always = !server.IsLoopback(address.String())
	if o.web.oauth.Issuer != "" {
		external, err := issuer.New(ctx, o.web.oauth)
		if err != nil {
			return nil, usageError(fmt.Errorf("--oauth-issuer: %w", err))
		}
		d.issuer, d.always = external, true
	}
	all, err := d.tokens.List()
	if err != nil {
		return nil, err
	}
	if d.always && d.issuer == nil && len(all) == 0 {
		return nil, usageError(fmt.Errorf("other computers may reach %s, and no principal has a token: run gpulease token create NAME first, or listen on 127.0.0.1", o.web.listen))
	}
	return d, nil
}

func (d *admission) Required() (bool, error) {
	if d.always || d.seen.Load() {
		return true, nil
	}
	all, err := d.tokens.List()
	if err != nil {
		return true, err
	}
	if len(all) > 0 {
		d.seen.Store(true)
	}
	return len(all) > 0, nil
}

func (d *admission) Authenticate(ctx context.Context, secret string) (principal string, ok bool, err error) {
	if d.issuer == nil || strings.HasPrefix(secret, token.Prefix) {
		return d.tokens.Authenticate(secret)
	}
	principal, ok, why := d.issuer.Authenticate(ctx, secret)
	switch {
	case errors.Is(why, issuer.ErrScope):
		return "", false, server.ErrScope
	case why != nil:
		d.log.Debug("an issuer's token was refused", "why", why)
	}
	return principal, ok, nil
}

func (d *admission) Has(principal string) (bool, error) {
	if strings.HasPrefix(principal, issuer.Prefix) {
		return d.issuer != nil && d.issuer.Has(principal), nil
	}
	return d.tokens.Has(principal)
}

// mayAsk reports whether a principal would be let in now.
func (d *admission) mayAsk(principal string) bool {
	if needed, err := d.Required(); err == nil && !needed {
		return true
	}
	ok, err := d.Has(principal)
	return err == nil && ok
}

// oauth is what clients are told of the issuer, nil where there is none.
func (d *admission) oauth(scope string) *server.OAuth {
	if d.issuer == nil {
		return nil
	}
	return &server.OAuth{Metadata: d.issuer.Metadata(), MetadataURL: d.issuer.MetadataURL(), Scope: scope}
}
