# Detached jobs on the leased machine. POSIX sh: dash, bash and busybox all run it.
#
#   job.sh start  ID WAIT HEAD TAIL           tar of the job on stdin; starts it at most once, waits, shows
#   brief.sh brief ID WAIT HEAD TAIL          the same for a job in gl_text
#   job.sh show   ID WAIT HEAD TAIL           state, and head and tail of both streams
#   job.sh page   ID STREAM OFFSET LIMIT WAIT exact bytes; a negative offset counts from the end. Of stream "both" the
#                                             order of what was written, not the bytes
#   job.sh find ID STREAM OFFSET MOST LAST AROUND HOW PATTERN   where a pattern is, and the bytes around it
#   job.sh order ID                           what was written when
#   job.sh cancel ID GRACE                    INT, TERM, KILL over every process of the job
#   job.sh list
#
# Every verb may be sent again. See base.sh for the form of a reply.
#
# One directory a job, ~/.gpulease/jobs/ID:
#   claim    whoever makes it runs the job
#   pid      the supervisor: pid, start time, boot
#   began    wall time of the start
#   main     pid (and session) of the command
#   scope    the cgroup that holds every process of the command, where there is systemd
#   cmd opt command stdin   what to run; cmd, opt and stdin go away at the end, since they may hold secrets
#   stdout stderr   exactly what the job wrote
#   order    how long the streams were when: centiseconds since the start, bytes of stdout, bytes of stderr
#   usage    processor time, most memory, and for how long the job has been hanging
#   trouble  what the kernel said of GPUs and memory while a job ran that failed
#   reason   why somebody is ending it; the first writer wins
#   exit     written last, by rename: code, wall time of the end, reason; below it processor time, most memory, and
#            whether the streams were cut at their limit. If it is there, the job has ended
#   answered the wait for the job is over, see ready.sh
#   done     a fifo that the supervisor holds open, so that a reader wakes in the moment in which it goes

start() { # reads the job from stdin
	[ ! -e "$gl_job/claim" ] || return 0
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
	gl_ack=$(launch supervise "$gl_id" "$gl_stage" 0 2>/dev/null)
	umask 077
	rm -rf "$gl_stage"
	[ "$gl_ack" = started ] || [ -e "$gl_job/claim" ] || fail storage 'the supervisor did not start'
}

# length is how long a stream is. Of both together, while the job runs, it is what has been noted: where the rest belongs
# is not known yet.
length() { # stream: gl_size
	sizes
	case $1 in
	stdout) gl_size=$gl_osize ;;
	stderr) gl_size=$gl_esize ;;
	both)
		gl_size=$((gl_osize + gl_esize))
		[ "$gl_state" = running ] || return 0
		set -- $(tail -n 1 "$gl_job/order" 2>/dev/null)
		gl_size=$((${2:-0} + ${3:-0}))
		;;
	esac
}

# frugal runs a command for at most $1 seconds, and with 4 GiB of memory: a pattern such as (a{1,30000})(b{1,30000}) has grep
# take all there is, and the jobs are killed for it.
frugal() { (
	ulimit -v 4194304 2>/dev/null
	exec timeout "$@"
); }

# offsets lists where behind gl_off matches begin, one more than are wanted, and how grep ended.
offsets() { # stream head-or-tail how pattern: gl_found
	gl_found=$(tail -c "+$((gl_off + 1))" "$gl_job/$1" | head -c $((gl_size - gl_off)) |
		{ frugal 20 grep -abo "$3" -e "$4"; echo "end $?"; } 2>/dev/null |
		cut -b 1-24 | sed -n 's/^\([0-9][0-9]*\):.*/\1/p;/^end /p' | "$2" -n $((gl_most + 2)))
}

# search finds a pattern, as bytes, and shows what is around it. grep gives each match with its offset, "12:text", and
# of the text we take nothing: it may be 100 MB long.
search() { # stream offset most last around how pattern
	gl_off=$2 gl_most=$3 gl_last=$4 gl_around=$5
	status
	[ "$gl_state" != none ] || fail notfound "$gl_id"
	LC_ALL=C && export LC_ALL
	printf x | grep -abo x >/dev/null 2>&1 || fail tool 'grep on the machine tells no offsets'
	gl_err=$(: | frugal 10 grep "$6" -e "$7" 2>&1)
	[ $? -le 1 ] || fail pattern "${gl_err:-it takes too long}"
	sizes
	gl_size=$gl_osize
	[ "$1" = stdout ] || gl_size=$gl_esize
	[ "$gl_off" -ge 0 ] || gl_off=$((gl_size + gl_off))
	[ "$gl_off" -ge 0 ] || gl_off=0
	[ "$gl_off" -le "$gl_size" ] || gl_off=$gl_size
	if [ "$gl_last" = yes ]; then
		# Nearly always the end of the stream is enough, and a GiB of matches need not be listed.
		gl_from=$gl_off
		gl_off=$((gl_size - (16 << 20)))
		[ "$gl_off" -gt "$gl_from" ] || gl_off=$gl_from
		offsets "$1" tail "$6" "$7"
		if [ "$gl_off" -gt "$gl_from" ] && [ "$(printf '%s\n' "$gl_found" | grep -c '^[0-9]')" -le "$gl_most" ]; then
			gl_off=$gl_from
			offsets "$1" tail "$6" "$7"
		fi
	else
		offsets "$1" head "$6" "$7"
	fi
	printf '\036gpulease\n'
	lines
	gl_found=$(printf '%s\n' "$gl_found" | awk -v off="$gl_off" -v most="$gl_most" -v last="$gl_last" -v around="$gl_around" -v size="$gl_size" '
		NF == 0 { next }
		$1 == "end" { over = $2 <= 1; next }
		{ at[++n] = $1 + off }
		END {
			first = 1
			more = n > most || !over
			if (n > most) { if (last == "yes") first = n - most + 1; else n = most }
			printf "found %.0f %.0f %d\n", off, size, more
			for (i = first; i <= n; i++) {
				printf "match %.0f\n", at[i]
				b = at[i] > around ? at[i] - around : 0
				e = at[i] + around < size ? at[i] + around : size
				if (i > first && b <= end) { end = e; continue }
				if (i > first) printf "window %.0f %.0f\n", begin, end - begin
				begin = b; end = e
			}
			if (n >= first) printf "window %.0f %.0f\n", begin, end - begin
		}')
	printf '%s\n\n' "$gl_found"
	printf '%s\n' "$gl_found" | while read -r gl_i gl_b gl_n; do
		[ "$gl_i" != window ] || bytes "$gl_job/$1" "$gl_b" "$gl_n"
	done
}

gl_id=${2:-}
gl_job=$gl_jobs/$gl_id
detach
case ${1:-} in
supervise)
	supervise "$3" "${4:-0}"
	;;
scope)
	scope "$3"
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
		length "$3"
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
	[ "$3" != both ] || exec cat "$gl_job/order"
	bytes "$gl_job/$3" "$gl_off" "$gl_n"
	;;
find)
	search "$3" "$4" "$5" "$6" "$7" "$8" "$9"
	;;
order)
	status
	[ "$gl_state" != none ] || fail notfound "$gl_id"
	sizes
	printf '\036gpulease\n'
	lines
	echo
	cat "$gl_job/order" 2>/dev/null
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
		[ -e "$gl_job/claim" ] || continue
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
