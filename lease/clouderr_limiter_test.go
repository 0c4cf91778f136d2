package lease

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

// A call that is repeated may have been sent before the rate limit could not be read.
func TestOnlyWhatWasNotSentIsSaidNotToBe(t *testing.T) {
	t.Parallel()
	for outcome, says := range map[lambda.Outcome]bool{lambda.NothingHappened: true, lambda.MayHaveHappened: false} {
		cause := fmt.Errorf("%w: %w", lambda.ErrLimiter, errors.New("disk full"))
		e := cloudError("stop", "mkmach6c6mck", &lambda.Error{Message: "wait for a turn", Outcome: outcome, Err: cause})
		require.Equal(t, CodeLedgerUnavailable, e.Code)
		if says {
			require.Contains(t, e.Message, "nothing was sent")
		} else {
			require.NotContains(t, e.Message, "nothing was sent")
		}
	}
}
