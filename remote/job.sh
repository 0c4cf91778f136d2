# Detached jobs on the leased machine. POSIX sh: dash, bash and busybox all run it.
#
#   job.sh start  ID WAIT HEAD TAIL           tar of the job on stdin; starts it at most once, waits, shows
#   job.sh show   ID WAIT HEAD TAIL           state, and head and tail of both streams
#   job.sh page   ID STREAM OFFSET LIMIT WAIT exact bytes; a negative offset counts from the end
#   job.sh cancel ID GRACE                    INT, TERM, KILL over every process of the job
#   job.sh list
#
# Every verb may be sent again. See base.sh for the form of a reply.
#
# One directory a job, ~/.gpulease/jobs/ID:
#   claim/   made by mkdir: whoever makes it runs the job
#   pid      the supervisor: pid, start time, boot, wall time of the start
#   main     pid (and session) of the command
#   cmd opt command stdin   what to run; cmd, opt and stdin go away at the end, since they may hold secrets
#   stdout stderr   exactly what the job wrote
#   reason   why somebody is ending it; the first writer wins
#   exit     written last, by rename: code, wall time of the end, reason. If it is there, the job has ended
#   done     a fifo that the supervisor holds open, so that a reader wakes in the moment in which it goes

lines() { # the reply's lines for one job
	printf 'job %s\nstate %s\ncode %s\nreason %s\nstarted %s\nended %s\nstdout %s\nstderr %s\n' \
		"$gl_id" "$gl_state" "$gl_code" "$gl_reason" "$gl_started" "$gl_ended" "$gl_osize" "$gl_esize"
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

cut() { # size head tail: gl_h gl_t, so that nothing is shown twice
	gl_h=$2 gl_t=$3
	if [ "$1" -le $(($2 + $3)) ]; then gl_h=$1 gl_t=0; fi
}

show() { # head tail
	sizes
	printf '\036gpulease\n'
	lines
	cut "$gl_osize" "$1" "$2"
	gl_oh=$gl_h gl_ot=$gl_t
	cut "$gl_esize" "$1" "$2"
	printf 'excerpt %s %s %s %s\n\n' "$gl_oh" "$gl_ot" "$gl_h" "$gl_t"
	bytes "$gl_job/stdout" 0 "$gl_oh"
	bytes "$gl_job/stdout" $((gl_osize - gl_ot)) "$gl_ot"
	bytes "$gl_job/stderr" 0 "$gl_h"
	bytes "$gl_job/stderr" $((gl_esize - gl_t)) "$gl_t"
}

members() { # pids of all living processes of the job
	{
		if [ -n "$gl_proc" ]; then
			grep -Flzx "GPULEASE_JOB_ID=$gl_id" "$gl_proc"/[0-9]*/environ 2>/dev/null | sed 's,/environ$,,;s,.*/,mark ,'
			cat "$gl_proc"/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9]*\) (.*) \(.*\)/proc \1 \2/p'
		else
			ps -A -o pid= -o state= -o ppid= -o pgid= | sed 's/^/proc /;s/$/ 0/'
		fi
	} | awk -v main="$1" '
		$1 == "mark" { in_job[$2] = 1; next }
		$3 ~ /^[ZXx]/ { dead[$2] = 1; next }
		{ parent[$2] = $4; if (main != "" && ($2 == main || $5 == main || $6 == main)) in_job[$2] = 1 }
		END {
			do {
				more = 0
				for (p in parent) if (!(p in in_job) && (parent[p] in in_job)) { in_job[p] = 1; more = 1 }
			} while (more)
			for (p in in_job) if (!(p in dead)) printf "%s ", p
		}'
}

# endall ends every process of the job: by its mark, its session and its descent. Each signal goes to a process
# once, since a second interrupt cuts many programs short in their cleaning up.
endall() { # grace
	session # once: the job may exit in the middle of this, and its session must still be known
	for gl_sig in INT TERM KILL; do
		[ "$gl_sig" = KILL ] || [ "$1" -gt 0 ] || continue
		clock
		gl_until=$((gl_now + $1 / 2))
		[ "$gl_sig" = KILL ] && gl_until=$((gl_now + 500))
		gl_sent=' '
		while :; do
			gl_alive=$(members "$gl_main")
			[ -n "$gl_alive" ] || return 0
			for gl_p in $gl_alive; do
				case $gl_sent in *" $gl_p "*) continue ;; esac
				kill -s "$gl_sig" "$gl_p" 2>/dev/null ||
					{ [ "$gl_sig" = KILL ] && sudo -n kill -s KILL "$gl_p" </dev/null >/dev/null 2>&1; }
				gl_sent="$gl_sent$gl_p "
			done
			clock
			[ "$gl_now" -lt "$gl_until" ] || break
			nap 0.05
		done
	done
	return 1
}

because() { # the first reason stays
	(set -C && echo "$1" >"$gl_job/reason") 2>/dev/null
}

watch() { # ends the job at its timeout or when it has written too much
	clock
	gl_end=$((gl_now + gl_timeout))
	while :; do
		gl_tick=50
		clock
		if [ "$gl_timeout" -gt 0 ]; then
			[ $((gl_end - gl_now)) -ge "$gl_tick" ] || gl_tick=$((gl_end - gl_now))
			if [ "$gl_tick" -le 0 ]; then
				because timeout
				endall "$gl_grace"
				return
			fi
		fi
		span "$gl_tick"
		nap "$gl_span"
		sizes
		if [ "$gl_limit" -gt 0 ] && [ $((gl_osize + gl_esize)) -gt "$gl_limit" ]; then
			because output_limit
			endall "$gl_grace"
			return
		fi
	done
}

supervise() { # stage
	mkdir "$gl_job/claim" 2>/dev/null || exit 0
	mv -f "$1/cmd" "$1/opt" "$1/command" "$1/stdin" "$gl_job/"
	. "$gl_job/opt"
	# 9 is both ends of the fifo: the open does not block, and readers see the end when this process goes.
	mkfifo "$gl_job/done" && exec 9<>"$gl_job/done"
	: >"$gl_job/stdout"
	: >"$gl_job/stderr"
	: >"$gl_job/main" # made here for its mode
	printf '%64s\n' '' >"$gl_job/exit.new" # so that the end can be written down even when the job has filled the disk
	boot
	ident $$
	echo "$$ $gl_ident $gl_boot $(date +%s.%N)" >"$gl_job/pid" || exit 1
	echo started
	exec >/dev/null
	oomkills
	gl_before=$gl_ooms
	watch 9>&- &
	gl_dog=$!
	if [ -e "$gl_job/reason" ]; then
		gl_code=137
	else
		# In the foreground: a shell without job control makes its background commands ignore SIGINT.
		(
			umask "$gl_umask"
			export GPULEASE_JOB_ID="$gl_id"
			cd "$gl_dir" || exit 1
			[ "$gl_detach" = setsid ] && exec setsid sh "$gl_job/cmd"
			[ "$gl_detach" = perl ] && exec perl -MPOSIX -e 'POSIX::setsid(); exec @ARGV' sh "$gl_job/cmd"
			exec sh "$gl_job/cmd"
		) <"$gl_job/stdin" >>"$gl_job/stdout" 2>>"$gl_job/stderr" 9>&-
		gl_code=$?
	fi
	gl_ended=$(date +%s.%N)
	gl_reason=
	if { read -r gl_reason <"$gl_job/reason"; } 2>/dev/null && [ "$gl_reason" != cancelled ]; then
		wait "$gl_dog" # it is ending the rest
	else
		kill "$gl_dog" 2>/dev/null
	fi
	if [ -z "$gl_reason" ]; then
		gl_reason=exit
		[ "$gl_code" -le 128 ] || gl_reason=signal
		oomkills
		[ "$gl_code" -eq 137 ] && [ "$gl_ooms" != "$gl_before" ] && gl_reason=oom
	fi
	echo "$gl_code $gl_ended $gl_reason" 1<>"$gl_job/exit.new" && mv -f "$gl_job/exit.new" "$gl_job/exit"
	exec 9>&-
	rm -f "$gl_job/cmd" "$gl_job/opt" "$gl_job/stdin" "$gl_job/done"
}

detach() { # how a process gets a session of its own here
	gl_detach=plain
	if command -v setsid >/dev/null 2>&1; then
		gl_detach=setsid
	elif command -v perl >/dev/null 2>&1; then
		gl_detach=perl
	fi
}

# launch runs the supervisor in a session of its own and prints what it says before it lets go of stdout. bash's
# job control is used where there is bash, because it leaves SIGINT as it is for what runs in the background.
launch() { # stage
	set -- sh "$0" supervise "$gl_id" "$1"
	case $gl_detach in
	setsid) set -- setsid "$@" ;;
	perl) set -- perl -MPOSIX -e 'fork and exit; POSIX::setsid(); exec @ARGV' "$@" ;;
	*) set -- nohup "$@" ;;
	esac
	if command -v bash >/dev/null 2>&1; then
		# SHLVL: a bash that sshd's login shell has not counted takes itself for the login shell, and reads .bashrc.
		SHLVL=1 bash -c 'set -m; "$@" </dev/null 2>/dev/null &' bash "$@"
	else
		"$@" </dev/null 2>/dev/null &
	fi
}

start() { # reads the job from stdin
	[ ! -d "$gl_job/claim" ] || return 0
	gl_stage=$gl_job/stage.$$
	mkdir -p "$gl_stage" || fail storage "$gl_job cannot be made"
	gl_err=$(tar -xof - -C "$gl_stage" 2>&1) && [ -f "$gl_stage/end" ] || {
		rm -rf "$gl_stage"
		rmdir "$gl_job" 2>/dev/null
		fail storage "job not received whole: $(printf %s "$gl_err" | tr '\n' ' ')"
	}
	. "$gl_stage/opt"
	if ! (cd "$gl_dir") 2>/dev/null; then
		rm -rf "$gl_stage"
		rmdir "$gl_job" 2>/dev/null
		fail directory "$(printf %s "$gl_dir" | tr '\n' ' ')"
	fi
	umask "$gl_umask"
	gl_ack=$(launch "$gl_stage" 2>/dev/null)
	umask 077
	rm -rf "$gl_stage"
	[ "$gl_ack" = started ] || [ -d "$gl_job/claim" ] || fail storage 'the supervisor did not start'
}

gl_id=${2:-}
gl_job=$gl_jobs/$gl_id
detach
case ${1:-} in
supervise)
	supervise "$3"
	;;
start)
	cd "$gl_home" 2>/dev/null
	start
	await "$3"
	show "$4" "$5"
	;;
show)
	gl_guard=
	await "$3"
	unguard
	[ "$gl_state" != none ] || fail notfound "$gl_id"
	show "$4" "$5"
	;;
page)
	gl_off=$4 gl_guard=
	clock
	gl_stop=$((gl_now + $6))
	while :; do
		status
		[ "$gl_state" != none ] || fail notfound "$gl_id"
		sizes
		gl_size=$gl_osize
		[ "$3" = stdout ] || gl_size=$gl_esize
		[ "$gl_off" -ge 0 ] || gl_off=$((gl_size + gl_off))
		[ "$gl_off" -ge 0 ] || gl_off=0
		[ "$gl_size" -le "$gl_off" ] && [ "$gl_state" = running ] || break
		clock
		gl_left=$((gl_stop - gl_now))
		[ "$gl_left" -gt 0 ] || break
		[ "$gl_left" -le 20 ] || gl_left=20
		linger "$gl_left"
		guard
	done
	unguard
	[ "$gl_off" -le "$gl_size" ] || gl_off=$gl_size
	gl_n=$((gl_size - gl_off))
	[ "$gl_n" -le "$5" ] || gl_n=$5
	printf '\036gpulease\n'
	lines
	printf 'page %s %s %s\n\n' "$gl_off" "$gl_n" "$gl_size"
	bytes "$gl_job/$3" "$gl_off" "$gl_n"
	;;
cancel)
	status
	[ "$gl_state" != none ] || fail notfound "$gl_id"
	[ "$gl_state" != running ] || because cancelled
	gl_try=0
	while endall "$3"; do
		# Nothing is left. A supervisor that had not come to its command yet reads the reason and ends.
		await 100
		gl_try=$((gl_try + 1))
		[ "$gl_state" = running ] && [ "$gl_try" -lt 5 ] || break
	done
	status
	sizes
	printf '\036gpulease\n'
	lines
	printf 'left %s\n\n' "$gl_alive"
	;;
list)
	printf '\036gpulease\n'
	for gl_job in "$gl_jobs"/*; do
		[ -d "$gl_job/claim" ] || continue
		gl_id=${gl_job##*/}
		status
		sizes
		lines
	done
	echo
	;;
*)
	fail usage "unknown verb"
	;;
esac
