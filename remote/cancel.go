package remote

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Cancel ends a job: SIGINT to every process of it, SIGTERM after half of grace, SIGKILL after the whole of it;
// with a grace of 0 SIGKILL at once. It returns when all are seen to be gone. What the job has left running behind
// it, after its own end, is ended too, so it is also for jobs that have exited or are lost. Processes that survive
// are [ErrNotEnded], with the job as it is.
func (p *Pool) Cancel(ctx context.Context, t Target, jobID string, grace time.Duration) (Job, error) {
	if err := validateJobID(jobID); err != nil {
		return Job{}, err
	}
	var job Job
	err := p.with(ctx, t, func(n *conn) error {
		r, err := n.call(ctx, request{
			script: jobScript,
			args:   []string{"cancel", jobID, strconv.FormatInt(centiseconds(grace), 10)},
		})
		if err != nil {
			return err
		}
		if job, err = parseJob(r); err != nil {
			return err
		}
		if left := r.get("left"); left != "" {
			return fmt.Errorf("%w: pids %s", ErrNotEnded, left)
		}
		return nil
	})
	if err != nil {
		return job, fmt.Errorf("cancel job %s: %w", jobID, err)
	}
	return job, nil
}
