package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The keeper looked at its settings twice, and took the default place of the policy for one that somebody had named. No file
// was there, so it launched nothing that was approved and ended nothing that was idle.
func TestDefaultPolicyPathIsNotTakenForAGivenOne(t *testing.T) {
	s := newSettings([]string{"HOME=" + t.TempDir()})
	newRoot(s, nil, nil, nil)
	for range 2 {
		require.NoError(t, s.check())
		require.False(t, s.policyIsGiven)
		_, err := s.policySource().Current()
		require.NoError(t, err)
	}
}

// What a call took is for people to read.
func TestTheLogHasDurationsInSeconds(t *testing.T) {
	s := newSettings(nil)
	newRoot(s, nil, nil, nil)
	var out strings.Builder
	log, err := s.logger(&out)
	require.NoError(t, err)
	log.Info("call", "dur", 4373156082*time.Nanosecond)
	require.Contains(t, out.String(), `"dur":"4.373s"`)
}
