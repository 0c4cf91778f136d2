package tools

import (
	"context"
	"time"
)

type cancelIn struct {
	JobID        string `json:"job_id"`
	GraceSeconds *int   `json:"grace_seconds,omitempty" jsonschema:"minimum=0,maximum=30,default=5" jsonschema_description:"From SIGTERM to SIGKILL."`
}

type cancelOut struct {
	jobFields
	leaseBeside
	advice
}

const defaultGrace = 5

func cancelJob(l interface {
	Reader
	Worker
}) Tool {
	return New(Def{
		Name:        "cancel_job",
		Title:       "Cancel a job",
		Description: "Ends a job and every process that it started: SIGINT, SIGTERM, SIGKILL. Its output stays readable; the lease goes on and costs money. Safe to repeat.",
		Annotations: Annotations{Destructive: true, Idempotent: true},
	}, func(ctx context.Context, in cancelIn) (cancelOut, error) {
		grace := defaultGrace
		if in.GraceSeconds != nil {
			grace = *in.GraceSeconds
		}
		job, err := l.Cancel(ctx, in.JobID, time.Duration(grace)*time.Second)
		if err != nil {
			return cancelOut{}, ofLease(err, job.Lease.ID)
		}
		s := status(ctx, l, job.Lease)
		return cancelOut{jobFields: fieldsOf(job.Job), leaseBeside: besideOf(s), advice: adviceOf(s, nextForJob(job.Job, false))}, nil
	})
}

// Text is the job in a line.
func (o cancelOut) Text() string { return o.jobFields.line() + o.lines() }
