package lease_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
)

type signer string

func (s signer) Sign(_ context.Context, text string) (string, error) {
	k, err := lambda.ParseKey(string(s))
	if err != nil {
		return "", err
	}
	return k.Sign(text), nil
}

type brokenSigner struct{}

func (brokenSigner) Sign(context.Context, string) (string, error) { return "", errors.New("no key") }

func TestNamesRoundTripAndFitTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := lease.Name{
			Ledger:   rapid.StringMatching(`[a-z2-7]{4}`).Draw(t, "ledger"),
			Lease:    lease.ID(rapid.StringMatching(`[a-z2-7]{12}`).Draw(t, "lease")),
			HardStop: time.Unix(rapid.Int64Range(1, 99_999_999_999).Draw(t, "stop"), 0).UTC(),
		}
		name, err := n.Signed(context.Background(), signer("secret_one"))
		require.NoError(t, err)
		require.LessOrEqual(t, len(name), 64)
		got, ok, err := lease.ParseName(context.Background(), signer("secret_one"), name)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, n, got)

		_, ok, err = lease.ParseName(context.Background(), signer("secret_two"), name)
		require.NoError(t, err)
		require.False(t, ok, "another key's name is not ours")

		i := rapid.IntRange(0, len(name)-1).Draw(t, "changed")
		c := rapid.SampledFrom([]byte("abcdefghijklmnopqrstuvwxyz234567-0189")).Draw(t, "to")
		forged := name[:i] + string(c) + name[i+1:]
		if forged != name {
			_, ok, err = lease.ParseName(context.Background(), signer("secret_one"), forged)
			require.NoError(t, err)
			require.False(t, ok, "a changed name is not ours: %s", forged)
		}
	})
}

func TestForeignNames(t *testing.T) {
	for _, name := range []string{"", "gl", "gl----", "my-gpu", "gl-aaaa-bbbbbbbbbbbb-t4x8k0", "gl-aaaa-bbbbbbbbbbbb-t4x8k0-cccccccccccccccc",
		"gl-aaaa-bbbbbbbbbbbb--1-cccccccccccccccc", "gl-aaaa-BBBBBBBBBBBB-1-c", "gl-aaaa-bbbbbbbbbbbb-zzzzzzzzzzzzzzzzzzzzzz-c", strings.Repeat("-", 1000)} {
		_, ok, err := lease.ParseName(t.Context(), signer("secret_one"), name)
		require.NoError(t, err)
		require.False(t, ok, "%q", name)
	}
	_, ok, err := lease.ParseName(t.Context(), brokenSigner{}, "gl-aaaa-bbbbbbbbbbbb-t4x8k0-cccccccccccccccc")
	require.Error(t, err)
	require.False(t, ok)
}

func TestStatesOnlyMoveForward(t *testing.T) {
	order := map[lease.State]int{}
	for i, s := range lease.States() {
		order[s] = i
	}
	for _, from := range lease.States() {
		require.Equal(t, from != lease.Ended, from.Live())
		for _, to := range lease.States() {
			if from.CanBecome(to) && from != to && from != lease.AwaitingApproval {
				require.Greater(t, order[to], order[from], "%s to %s", from, to)
			}
		}
		require.False(t, lease.Ended.CanBecome(from), "ended is final")
	}
}
