// Package remote works on a leased machine over SSH: it keeps one pinned connection a machine, starts commands
// as detached jobs, reads their output in exact bytes, ends them, probes GPUs, and carries files both ways.
//
// # Connections
//
// A [Pool] keeps one connection for each [Target.Key] and dials again by itself. The host key is pinned: it is
// known before the first connect, and there is no "trust on first use". A mismatch is [ErrHostKey]; whether it
// means "not ready yet" (the image's own key, before cloud-init has put ours in place) or "refuse" is the
// caller's to say. Nothing is disclosed to a host that fails the check, since it comes before authentication.
// At most MaxSessions commands run on a connection at once; OpenSSH refuses more than ten.
//
// # Jobs
//
// A job is a directory on the machine (~/.gpulease/jobs/ID) and a supervisor of POSIX sh, job.sh, which needs no
// systemd and no root. The caller chooses the ID, and that makes [Pool.Start] safe to repeat: however often it is
// sent, the command runs at most once. A job does not notice when a connection, or this process, ends. Every
// process of a job carries GPULEASE_JOB_ID in its environment, and [Pool.Cancel] finds them by that mark, by their
// session and by their descent: process groups would miss daemons and torchrun's workers.
//
// The supervisor measures what the job uses, notes when its streams grow ([Pool.Order]), ends it at its timeouts and
// limits, and tells when it hangs. Where there is systemd the command runs in a scope, so that not even a daemon with a
// clean environment is missed.
//
// A connection keeps one shell ready on the machine that starts the next job, see ready.go: a short command is then twice as
// fast. What it does not do is done in the ordinary way.
//
// The streams are files. A job that opens /dev/stdout or /dev/stderr for writing by name truncates them, as it
// would under any shell redirection to a file.
//
// # What is retried
//
// Every call here may be repeated on the machine without harm, so a connection that breaks in the middle is
// replaced and the call sent again. It gives up when no connection has held for Config.ReconnectFor. A first connect
// that fails is not retried: [ErrUnreachable], [ErrHostKey] and [ErrAuth] go to the caller at once.
//
// The package knows nothing of leases, prices or policy, and confines no local paths: callers do.
package remote
