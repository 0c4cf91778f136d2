package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/policy"
)

// Launch reserves the worst case and launches. It returns as soon as the cloud
// has answered the launch call, or when ctx ends: the launch itself goes on
// then, and the lease says where it stands. Where the policy wants a person to
// say yes first, the lease is [AwaitingApproval] and nothing is reserved. The same
// idempotency key gives the same lease, whatever happened to the first call.
func (m *Manager) Launch(ctx context.Context, r LaunchRequest) (Lease, error) {
	if err := r.check(); err != nil {
		return Lease{}, err
	}
	r.Principal = m.who(ctx, r)
	if r.IdempotencyKey != "" {
		// Before all else: the first call may have taken the last machine or budget.
		old, err := m.Store.ByKey(ctx, r.Principal, r.IdempotencyKey)
		if err == nil {
			return repeated(old, r)
		}
		if !errors.Is(err, ErrNotFound) {
			return Lease{}, ledgerError("look for an earlier launch", err)
		}
	}
	p, err := m.policyNow()
	if err != nil {
		return Lease{}, err
	}
	q, offers, err := m.find(ctx, p, r)
	if err != nil {
		return Lease{}, err
	}
	if err := m.sight(ctx); err != nil {
		return Lease{}, err
	}
	if err := m.askTime(ctx); err != nil {
		return Lease{}, err
	}
	l, secrets, err := m.intent(ctx, p, r, q)
	if err != nil {
		return Lease{}, err
	}
	m.Crash("intended")
	res, err := m.Store.Reserve(ctx, l, l.CreatedAt, m.periods(p, l.CreatedAt), func(u policy.Usage) policy.Decision {
		return refuseMany(u.Principal.Waiting, policy.Evaluate(p, m.policyRequest(p, l.Principal, q.Offer, l.Region, l.TTL), u, m.alternatives(offers)))
	})
	switch {
	case err != nil:
		return Lease{}, ledgerError("reserve", err)
	case res.Existing:
		return repeated(res.Lease, r)
	case res.Decision.Verdict == policy.Ask:
		return m.asked(ctx, res.Lease, res.Decision)
	case res.Decision.Verdict != policy.Allow:
		return Lease{}, m.denied(ctx, res.Decision, l.Principal)
	}
	m.mayTryAgain(r, res.Lease)
	return m.send(ctx, p, res.Lease, q, secrets)
}

// send launches what has been reserved, in a goroutine that outlives the call.
func (m *Manager) send(ctx context.Context, p *policy.Policy, l Lease, q Quote, s secrets) (Lease, error) {
	m.Crash("reserved")
	// Not before: a key whose lease the ledger does not know would stay for ever.
	if err := m.Keys.Save(l.ID, s.login.PrivatePEM); err != nil {
		return l, m.giveUp(context.WithoutCancel(ctx), l, Refused, &Error{
			Code: CodeInternal, Message: "the lease's SSH key could not be written, so nothing was launched", Why: err.Error(), Next: "check GPULEASE_STATE_DIR, its permissions and free disk space", LeaseID: l.ID, Err: err,
		})
	}
	m.Crash("key-saved")
	if err := m.EnsureGuard(ctx); err != nil {
		m.log.Error("no guard could be started", "lease", l.ID, "err", err)
		if p.RequireGuard && !m.reaperSeen(ctx) {
			return l, m.giveUp(context.WithoutCancel(ctx), l, Refused, &Error{
				Code: CodePolicyDenied, Message: "nothing that outlives this process would end the lease at its deadline, so it was not launched",
				Why: "require_guard is on, and no keeper could be started: " + err.Error(), Next: "mend the cause, or switch require_guard off in the policy", LeaseID: l.ID, Err: err,
			})
		}
	}
	m.Crash("guarded")
	m.log.Info("reserved", "lease", l.ID, "type", l.Type, "region", l.Region, "reserved", l.Reserved.String(), "policy", l.PolicyHash)

	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return m.cancelUnsent(ctx, l)
	}
	m.launches.Add(1)
	m.mu.Unlock()
	outcome := make(chan error, 1)
	go func() {
		defer m.launches.Done()
		defer m.nudge()
		// The caller may go away; the launch must not be cut short by that.
		outcome <- m.carryOut(context.WithoutCancel(ctx), p.Network, l, q, s)
	}()
	select {
	case err := <-outcome:
		now, getErr := m.Store.Get(context.WithoutCancel(ctx), l.ID)
		if getErr != nil {
			return l, ledgerError("read the lease", getErr).of(l.ID)
		}
		return now, err
	case <-ctx.Done():
		return l, nil
	}
}

// intent is the row that is written before anything is launched.
func (m *Manager) intent(ctx context.Context, p *policy.Policy, r LaunchRequest, q Quote) (Lease, secrets, error) {
	account, err := m.Cloud.Account(ctx)
	if err != nil {
		return Lease{}, secrets{}, cloudError("identify the account", "", err)
	}
	id, err := randomText(m.Rand, idLength)
	if err != nil {
		return Lease{}, secrets{}, &Error{Code: CodeInternal, Message: "the lease's id could not be made, so nothing was launched", Err: err}
	}
	now := m.now()
	l := Lease{
		ID: ID(id), Principal: r.Principal, Purpose: r.Purpose, IdempotencyKey: r.IdempotencyKey, Fingerprint: r.fingerprint(),
		PolicyOrigin: m.Policy.Origin(), Account: account, Home: m.Home, AskedRegion: r.Region, Results: strings.Join(r.Results, "\n"), ResultsDir: strings.ReplaceAll(r.ResultsDir, LeaseInPath, id),
		Type: q.Offer.Type, ImageFamily: m.ImageFamily, GPUs: q.Offer.GPUs, TTL: q.TTL, CreatedAt: now, DecideBy: now.Add(p.ApprovalTime()),
	}
	return m.dated(ctx, p, l, q, now)
}

// dated is the lease as it would be launched now: its price, its allowances, its
// names, which hold the hard stop, and new keys.
func (m *Manager) dated(ctx context.Context, p *policy.Policy, l Lease, q Quote, now time.Time) (Lease, secrets, error) {
	s, err := m.newSecrets()
	if err != nil {
		return Lease{}, s, err
	}
	ledger, err := m.Store.LedgerID(ctx)
	if err != nil {
		return Lease{}, s, ledgerError("read the ledger's name", err)
	}
	l.State, l.Detail = Launching, "reserved; the launch call has not been sent"
	l.ReservedAt, l.PolicyHash, l.Region, l.Price = now, p.Hash(), q.Regions[0], q.Offer.Price
	l.BootAllowance, l.StopAllowance = m.Timing.boot(q.Offer.GPUs), m.Timing.StopAllowance
	l.HostKey = s.host.AuthorizedKey
	l.Reserved = l.WorstCase()
	if p.Network.Joins() {
		l.Addr = tailnetAddr
	}
	l.Deadline = now.Add(l.BootAllowance + l.TTL)
	longest := max(p.MaxTTLFor(l.Principal), l.TTL)
	l.HardStop = now.Add(l.BootAllowance + longest + l.StopAllowance).Truncate(time.Second)
	n := Name{Ledger: ledger, Lease: l.ID, HardStop: l.HardStop}
	l.KeyName = n.KeyName()
	if l.Name, err = n.Signed(ctx, m.Cloud); err != nil {
		return Lease{}, s, cloudError("sign the instance name", "", err)
	}
	return l, s, nil
}

// repeated answers a launch whose idempotency key was used before.
func repeated(old Lease, r LaunchRequest) (Lease, error) {
	if old.Fingerprint != r.fingerprint() {
		return Lease{}, &Error{
			Code: CodeInvalidInput, Message: fmt.Sprintf("the idempotency key %q was used for another request", r.IdempotencyKey),
			Why: fmt.Sprintf("lease %s has it; what differs: %s", old.ID, r.unlike(old)), Next: "use a new key, or repeat the first request as it was", LeaseID: old.ID,
		}
	}
	return old, nil
}

// launchStale is how long after its mark a launch call may still be sent.
const launchStale = 30 * time.Second

// launchKeyTimeout bounds the calls before the launch call.
const launchKeyTimeout = 90 * time.Second

// carryOut registers the key and sends the launch call, once for each region
// that is proven to have none. Its error is for the caller who still listens;
// all that matters is in the ledger.
func (m *Manager) carryOut(ctx context.Context, n policy.Network, l Lease, q Quote, s secrets) error {
	data, failed := m.firstBoot(ctx, n, l, s)
	if failed != nil {
		if m.isClosed() {
			_, err := m.cancelUnsent(ctx, l)
			return err
		}
		return m.giveUp(ctx, l, Refused, failed)
	}
	m.Crash("key-adding")
	keyCtx, cancel := context.WithTimeout(ctx, launchKeyTimeout)
	_, err := m.Cloud.AddSSHKey(keyCtx, l.KeyName, s.login.AuthorizedKey)
	if err != nil && !nothingHappened(err) {
		err = m.keyArrived(keyCtx, l.KeyName, s.login.Public, err)
	}
	cancel()
	if err != nil {
		return m.giveUp(ctx, l, Refused, cloudError("register the lease's SSH key", l.ID, err))
	}
	m.Crash("key-added")

	for i, region := range q.Regions {
		// By a clock that has jumped since the reservation, others would take the launch
		// for one of hours ago, and its instance for one that never came.
		timeCtx, cancel := context.WithTimeout(ctx, listingCall)
		err := m.askTime(timeCtx)
		cancel()
		if err != nil {
			return m.giveUp(ctx, l, Cancelled, cloudError("launch", l.ID, err))
		}
		l.Region, l.LaunchSentAt = region, m.now()
		l.Detail = "the launch call is on its way to " + region
		m.Crash("launch-marking")
		if l, err = m.Store.Update(ctx, l, "launch call to "+region); err != nil {
			// Stopped meanwhile, or the ledger is gone: nothing has been sent for this
			// region, and everything before it was proven to have failed.
			return m.abandoned(ctx, l.ID, err)
		}
		m.Crash("launch-marked")
		if m.now().Sub(l.LaunchSentAt) > launchStale {
			// We slept since: by now others may take the launch for not having happened.
			return m.giveUp(ctx, l, Cancelled, &Error{Code: CodeInternal, Message: "this computer slept before the launch call; nothing was launched", LeaseID: l.ID, Retryable: true})
		}
		callCtx, cancel := context.WithTimeout(ctx, m.Timing.LaunchCall)
		id, err := m.Cloud.Launch(callCtx, lambda.LaunchRequest{
			Region: region, InstanceType: l.Type, SSHKeyName: l.KeyName, Name: l.Name, Image: lambda.ImageRef{Family: l.ImageFamily},
			UserData: data, Tags: []lambda.Tag{{Key: tagKey, Value: l.Name}}, FirewallRulesets: q.rulesetsIn(region),
		})
		cancel()
		m.Crash("launch-sent")
		switch {
		case err == nil && !m.wasThere(ctx, id):
			return m.bind(ctx, l, id)
		case err == nil || !nothingHappened(err):
			if err == nil {
				err = fmt.Errorf("the answer names instance %s, which was there before", id)
			}
			l.Detail = "the answer to the launch call was lost; the account is being searched for the instance"
			m.Crash("launch-lost")
			if _, upErr := m.Store.Update(ctx, l, "launch outcome unknown: "+err.Error()); upErr != nil && !errors.Is(upErr, ErrConflict) {
				m.log.Error("a lost launch could not be noted", "lease", l.ID, "err", upErr)
			}
			m.log.Warn("launch outcome unknown", "lease", l.ID, "err", err)
			return nil
		case lambda.IsCode(err, lambda.CodeInsufficientCapacity) && i < len(q.Regions)-1:
			m.log.Info("no capacity after all", "lease", l.ID, "region", region)
			continue
		}
		reason := Refused
		switch {
		case lambda.IsCode(err, lambda.CodeInsufficientCapacity):
			reason = NoCapacity
		case errors.Is(err, lambda.ErrLimiter):
			reason = Cancelled
		}
		return m.giveUp(ctx, l, reason, cloudError("launch "+l.Type+" in "+region, l.ID, err))
	}
	return nil
}

// wasThere reports whether an instance was in the account before the launch whose answer
// names it, and is no lease's: it is somebody else's, and will not be ours to end.
func (m *Manager) wasThere(ctx context.Context, instance string) bool {
	seen, err := m.Store.Sighted(ctx) // written down by sight, before the reservation
	return err == nil && slices.ContainsFunc(seen, func(s Stranger) bool { return s.Instance == instance })
}

// tagKey is the tag that carries the signed name once more. Tags can be dropped
// and names edited, so neither is relied on alone.
const tagKey = "gpulease"

// keyArrived finds out whether a key whose registration had no clear answer is
// there. cause is returned if it is not.
func (m *Manager) keyArrived(ctx context.Context, name string, key ssh.PublicKey, cause error) error {
	keys, err := m.Cloud.SSHKeys(ctx)
	if err != nil {
		return cause
	}
	for _, k := range keys {
		if k.Name != name {
			continue
		}
		if got, err := parseHostKey(k.PublicKey); err == nil && string(got.Marshal()) == string(key.Marshal()) {
			return nil
		}
	}
	return cause
}

// bind writes the instance that the cloud has named into the lease. Should the
// lease have been stopped meanwhile, the stop gets the instance.
func (m *Manager) bind(ctx context.Context, l Lease, instance string) error {
	for {
		l.InstanceID = instance
		l.BillingFrom = l.LaunchSentAt
		if l.State == Launching {
			l.State, l.Detail = Booting, "launched; waiting for its address"
		}
		m.Crash("binding")
		_, err := m.Store.Update(ctx, l, "launched as "+instance)
		if err == nil {
			m.Crash("bound")
			m.log.Info("launched", "lease", l.ID, "instance", instance)
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			m.log.Error("a launched instance could not be written down; it will be found by its name", "lease", l.ID, "instance", instance, "err", err)
			return ledgerError("write down instance "+instance, err).of(l.ID)
		}
		id := l.ID
		if l, err = m.Store.Get(ctx, id); err != nil {
			return ledgerError("read the lease", err).of(id)
		}
		switch {
		case l.InstanceID == instance:
			return nil // somebody found it by its name already
		case l.InstanceID != "" || l.State == Ended:
			return m.endStray(ctx, l, instance, l.Price)
		}
	}
}

// abandoned is what a launch does when its row could not be marked as sent.
func (m *Manager) abandoned(ctx context.Context, id ID, cause error) error {
	l, err := m.Store.Get(ctx, id)
	if err != nil {
		return ledgerError("mark the launch", errors.Join(cause, err)).of(id)
	}
	if l.State == Launching && !errors.Is(cause, ErrConflict) { // frozen, or the ledger cannot be written
		e := ledgerError("launch", cause).of(id)
		if !errors.Is(cause, ErrFrozen) {
			e.Message += ", so nothing was launched"
		}
		return m.giveUp(ctx, l, Cancelled, e)
	}
	if l.State == Stopping || l.State == Launching {
		return m.giveUp(ctx, l, reasonOr(l.Reason, Cancelled), &Error{Code: CodeLeaseEnded, Message: "stopped before the launch call was sent", LeaseID: id, Err: cause})
	}
	if l.State == Ended {
		m.forget(ctx, l) // the key was registered after the lease had been stopped
	}
	return nil
}

// cancelUnsent ends a lease whose launch was never begun because we are closing.
func (m *Manager) cancelUnsent(ctx context.Context, l Lease) (Lease, error) {
	err := m.giveUp(context.WithoutCancel(ctx), l, Cancelled, &Error{Code: CodeInternal, Message: "the server is closing; nothing was launched", LeaseID: l.ID, Retryable: true})
	return l, err
}

func reasonOr(r, otherwise Reason) Reason {
	if r != "" {
		return r
	}
	return otherwise
}

func parseHostKey(s string) (ssh.PublicKey, error) {
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s))
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", err)
	}
	return k, nil
}
