# What a reply says of a job, and waiting for it. Part of job.sh and brief.sh.

lines() { # the reply's lines for one job
	printf 'job %s\nstate %s\ncode %s\nreason %s\nstarted %s\nended %s\nstdout %s\nstderr %s\n' \
		"$gl_id" "$gl_state" "$gl_code" "$gl_reason" "$gl_started" "$gl_ended" "$gl_osize" "$gl_esize"
	printf 'wrote %s\ncpu %s\nmemory %s\nhang %s\ncapped %s\n' "$gl_wrote" "$gl_cpu" "$gl_kib" "$gl_hang" "$gl_capped"
	if [ -s "$gl_job/trouble" ]; then
		while read -r gl_line; do printf 'trouble %s\n' "$gl_line"; done <"$gl_job/trouble"
	fi
	if { read -r gl_line <"$gl_job/command"; } 2>/dev/null; then
		printf 'command %s\n' "$gl_line"
	fi
}

bytes() { # file offset count: raw
	[ "$3" -gt 0 ] || return 0
	if [ "$2" -eq 0 ]; then
		head -c "$3" "$1"
	else
		tail -c "+$(($2 + 1))" "$1" 2>/dev/null | head -c "$3"
	fi
}

linger() { # waits at most $1 centiseconds, less if the supervisor goes
	gl_from=$gl_now
	span "$1"
	if [ -p "$gl_job/done" ]; then
		timeout "$gl_span" cat "$gl_job/done" >/dev/null 2>&1
		clock
		[ $((gl_now - gl_from)) -ge 2 ] || [ -e "$gl_job/exit" ] || nap 0.1
	else
		nap 0.1
	fi
}

# guard ends this script when stdin ends, which is how it learns that the caller has given up: sshd counts a
# session as open until its command is gone. Only show and page get a stdin that stays open.
gl_guard=off
guard() {
	[ -z "$gl_guard" ] || return 0
	exec 3<&0
	{ cat; kill $$; } <&3 >/dev/null 2>&1 &
	gl_guard=$!
}

unguard() {
	case $gl_guard in off | '') ;; *) kill "$gl_guard" 2>/dev/null ;; esac
}

await() { # until the job has ended, at most $1 centiseconds
	clock
	gl_until=$((gl_now + $1)) gl_step=50
	while status && [ "$gl_state" = running ]; do
		clock
		gl_left=$((gl_until - gl_now))
		[ "$gl_left" -gt 0 ] || break
		[ "$gl_left" -le "$gl_step" ] || gl_left=$gl_step
		linger "$gl_left"
		gl_step=500
		guard
	done
}

parts() { # size head tail: gl_h gl_t, so that nothing is shown twice
	gl_h=$2 gl_t=$3
	if [ "$1" -le $(($2 + $3)) ]; then gl_h=$1 gl_t=0; fi
}

show() { # head tail
	[ "$gl_state" != none ] || fail gone 'it was started, and what was noted of it has been removed'
	sizes
	printf '\036gpulease\n'
	lines
	parts "$gl_osize" "$1" "$2"
	gl_oh=$gl_h gl_ot=$gl_t
	parts "$gl_esize" "$1" "$2"
	printf 'excerpt %s %s %s %s\n\n' "$gl_oh" "$gl_ot" "$gl_h" "$gl_t"
	bytes "$gl_job/stdout" 0 "$gl_oh"
	bytes "$gl_job/stdout" $((gl_osize - gl_ot)) "$gl_ot"
	bytes "$gl_job/stderr" 0 "$gl_h"
	bytes "$gl_job/stderr" $((gl_esize - gl_t)) "$gl_t"
}
