# The supervisor of a job: it runs the command, watches it, and writes down how it ended. Part of job.sh.

because() { # the first reason stays
	(set -C && echo "$1" >"$gl_job/reason") 2>/dev/null
}

finish() { # reason
	because "$1"
	endall "$gl_grace"
}

# order notes how long the streams are, so that it can be told later what was written before what: as exactly as the
# watch looks, from 10 times a second down to twice. A job that writes for long gets fewer notes, 70,000 at most in days.
order() {
	[ "$gl_osize $gl_esize" != "$gl_noted" ] && [ "$gl_now" -ge "$gl_note" ] || return 0
	gl_noted="$gl_osize $gl_esize"
	echo "$((gl_now - gl_begun)) $gl_noted" >>"$gl_job/order"
	gl_notes=$((gl_notes + 1)) gl_note=$((gl_now + 100))
	if [ "$gl_notes" -lt 4096 ]; then gl_note=$gl_now
	elif [ "$gl_notes" -gt 65536 ]; then gl_note=$((gl_now + 6000))
	elif [ "$gl_notes" -gt 16384 ]; then gl_note=$((gl_now + 500)); fi
}

gpubusy() { # whether a GPU works, or does not say
	command -v nvidia-smi >/dev/null 2>&1 || return 1
	bounded 5 65536 nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits | tr '\036' '\n' |
		awk 'NF { busy += !/^ *[0-5] *$/; last = $0; n++ } END { exit !(n > 1 && last == "0" && busy > 0) }'
}

# measure adds up what the job's processes use. Output, more than 2 % of one processor and a busy GPU are signs of life;
# GPUs are asked only when there has been no other sign for half of the time after which the job counts as hanging.
measure() {
	gl_was_used=$gl_used gl_was_at=$gl_measured gl_measured=$gl_now
	session
	tree "$gl_main" unmarked
	gl_i=$((gl_pages * gl_page / 1024))
	[ "$gl_i" -eq 0 ] || [ "$gl_i" -le "$gl_kib" ] || gl_kib=$gl_i
	[ "$gl_used" -le "$gl_cpu" ] || gl_cpu=$gl_used
	gl_i=$((gl_used - gl_was_used))
	[ "$gl_i" -le 2 ] || [ $((gl_i * 50)) -lt $((gl_now - gl_was_at)) ] || gl_sign=$gl_now
	gl_hang=
	if [ "$gl_idle" -gt 0 ]; then
		if [ $(((gl_now - gl_sign) * 2)) -ge "$gl_idle" ] && [ "$gl_now" -ge "$gl_look" ]; then
			gl_look=$((gl_now + gl_idle / 10))
			gpubusy && gl_sign=$gl_now
		fi
		[ $((gl_now - gl_sign)) -lt "$gl_idle" ] || gl_hang=$((gl_now - gl_sign))
	fi
	# In place, so that it can be written when the disk is full.
	printf '%-64s\n' "$gl_cpu $gl_kib $gl_hang" 1<>"$gl_job/usage"
}

# prepare does what the watch needs when a job is not over at once.
prepare() {
	mkfifo "$gl_job/done" 7>&- 8>&- && exec 9<>"$gl_job/done"
	{
		oomkills
		echo "$gl_ooms" >"$gl_job/ooms"
		gl_page=$(getconf PAGESIZE 2>/dev/null || echo 4096)
	} 7>&- 8>&- 9>&-
	[ -n "$gl_proc" ] || gl_page=0
}

# watch ends the job at a timeout or when it has written too much, and measures it meanwhile.
watch() {
	trap '' PIPE
	clock
	gl_begun=$gl_now gl_end=$((gl_now + gl_timeout)) gl_sign=$gl_now gl_heard=$gl_now
	gl_noted='0 0' gl_note=0 gl_notes=0 gl_sum=0
	gl_used=0 gl_cpu=0 gl_kib=-1 gl_measured=$gl_now gl_look=0 gl_pause=8 gl_slowest=200
	[ "$gl_idle" -eq 0 ] || [ "$gl_idle" -ge 800 ] || gl_slowest=$((gl_idle / 4))
	gl_page=
	while :; do
		gl_age=$((gl_now - gl_begun))
		if [ "$gl_age" -lt 100 ]; then gl_tick=10; elif [ "$gl_age" -lt 60000 ]; then gl_tick=25; else gl_tick=50; fi
		if [ "$gl_timeout" -gt 0 ] && [ $((gl_end - gl_now)) -lt "$gl_tick" ]; then
			gl_tick=$((gl_end - gl_now))
			[ "$gl_tick" -gt 0 ] || { finish timeout; return; }
		fi
		[ "$gl_limit" -eq 0 ] || [ $((gl_sum + 2 * gl_grown)) -lt "$gl_limit" ] || gl_tick=2
		span "$gl_tick"
		nap "$gl_span" 7>&- 8>&- 9>&- # nothing is to hold pipe and fifo when this process has been killed
		[ -n "$gl_page" ] || prepare
		# A supervisor that was killed leaves the job to this process, but not for longer than there is one.
		kill -0 $$ 2>/dev/null || {
			session
			tree "$gl_main" unmarked
			[ -n "$gl_alive" ] || exit
		} 7>&- 8>&- 9>&-
		clock
		if [ "$gl_wait" -gt 0 ] && [ $((gl_now - gl_begun)) -ge "$gl_wait" ]; then
			waited
			gl_wait=0
		fi
		sizes 7>&- 8>&- 9>&-
		gl_grown=$((gl_osize + gl_esize - gl_sum)) gl_sum=$((gl_osize + gl_esize))
		[ "$gl_grown" -eq 0 ] || gl_sign=$gl_now gl_heard=$gl_now
		order
		if [ "$gl_limit" -gt 0 ] && [ "$gl_sum" -gt "$gl_limit" ]; then
			finish output_limit
			return
		fi
		if [ "$gl_silence" -gt 0 ] && [ $((gl_now - gl_heard)) -ge "$gl_silence" ]; then
			finish no_output
			return
		fi
		if [ $((gl_now - gl_measured)) -ge "$gl_pause" ]; then
			measure 7>&- 8>&- 9>&-
			[ "$gl_pause" -ge "$gl_slowest" ] || gl_pause=$((gl_pause * 4))
			clock
		fi
	done
}

# cutoff cuts the longer stream to what the limit allows and marks the cut, also when the job has ended by itself.
cutoff() {
	sizes
	gl_sum=$((gl_osize + gl_esize))
	[ "$gl_limit" -gt 0 ] && [ "$gl_sum" -gt "$gl_limit" ] || return 0
	gl_capped=yes gl_f=stdout gl_keep=$((gl_osize - gl_sum + gl_limit))
	[ "$gl_osize" -ge "$gl_esize" ] || gl_f=stderr gl_keep=$((gl_esize - gl_sum + gl_limit))
	[ "$gl_keep" -ge 0 ] || gl_keep=0
	dd if=/dev/null of="$gl_job/$gl_f" bs=1 seek="$gl_keep" 2>/dev/null
	printf '\n[gpulease: cut here, since the job wrote more than its limit of %s bytes]\n' "$gl_limit" >>"$gl_job/$gl_f"
}

# trouble finds what the kernel said of GPUs and of memory while the job ran, and CUDA in the end of its stderr. The
# kernel's clock runs a little apart from ours.
trouble() { # begin: centiseconds since boot
	{
		if command -v dmesg >/dev/null 2>&1; then
			gl_text=$(bounded 5 8388608 dmesg)
			case $gl_text in *"$(printf '\036')0") ;; *) gl_text=$(bounded 5 8388608 sudo -n dmesg) ;; esac
			printf %s "$gl_text" | awk -v from="$(($1 / 100 - 2))" '
				/^\[ *[0-9]+\.[0-9]+\]/ && substr($0, 2) + 0 >= from && /NVRM: Xid|Killed process/ { sub(/^[^]]*\] */, ""); print "kernel " $0 }' |
				tail -n 8
		fi
		tail -c 65536 "$gl_job/stderr" | LC_ALL=C grep -aoE 'CUDA out of memory.{0,200}|CUDA error: .{0,200}' | tail -n 1 | sed 's/^/stderr /'
	} 2>/dev/null | tr -d '\000-\011\013-\037' | cut -c 1-400 >"$gl_job/trouble"
}

# spent tells the processor time of the children that this shell has waited for. Only a file can take it, since a
# subshell has no children yet.
spent() { # gl_spent: empty when it cannot be told
	times 1<>"$gl_job/times"
	gl_i= gl_tail= gl_spent=
	{ read -r gl_i && read -r gl_i gl_tail; } <"$gl_job/times"
	case $gl_i,$gl_tail in [0-9]*m[0-9]*[.,][0-9]*s,[0-9]*m[0-9]*[.,][0-9]*s) ;; *) return 0 ;; esac
	gl_spent=0
	for gl_i in "$gl_i" "$gl_tail"; do
		gl_i=${gl_i%s}
		gl_tail=${gl_i#*[.,]}00
		gl_tail=1${gl_tail%"${gl_tail#??}"}
		gl_f=${gl_i#*m}
		gl_spent=$((gl_spent + ${gl_i%%m*} * 6000 + ${gl_f%%[.,]*} * 100 + gl_tail - 100))
	done
}

verdict() { # gl_reason, from gl_code and what has been counted before
	gl_reason=
	if { read -r gl_reason <"$gl_job/reason"; } 2>/dev/null && [ "$gl_reason" != cancelled ]; then
		wait "$gl_dog" # it is ending the rest
	else
		kill "$gl_dog" 2>/dev/null
	fi
	[ -z "$gl_reason" ] || return 0
	gl_reason=exit
	[ "$gl_code" -le 128 ] || gl_reason=signal
	[ "$gl_code" -eq 137 ] && { read -r gl_before <"$gl_job/ooms"; } 2>/dev/null || return 0
	oomkills
	[ "$gl_ooms" = "$gl_before" ] || gl_reason=oom
}

# What started the supervisor is told that it runs, that the wait is over, and that the job has ended: with a wait, stdout is
# held until then. See ready.sh for another way.
started() {
	if [ "$gl_wait" -gt 0 ]; then
		date +%s.%N >"$gl_job/began" &
		echo started
		exec 8>&1 >/dev/null
	else
		date +%s.%N >"$gl_job/began"
		echo started
		exec 8>/dev/null >/dev/null
	fi
}

waited() {
	echo waited >&8
}

over() {
	exec 8>&-
}

# supervise runs the job that is staged: a directory of its files, or a file that sets its options and defines gl_run, or
# without either that text itself, in gl_text.
supervise() { # stage wait
	# By this the job is claimed: only one can make the file.
	set -C
	{ true >"$gl_job/claim"; } 2>/dev/null || {
		[ -d "$1" ] || rm -f "$1"
		exit 0
	}
	set +C
	gl_idle=0 gl_silence=0 gl_grown=0 gl_capped=no gl_wait=$2 gl_stage=
	if [ -d "$1" ]; then
		mv -f "$1/cmd" "$1/opt" "$1/command" "$1/stdin" "$gl_job/"
		. "$gl_job/opt"
		gl_run() {
			[ "$gl_detach" = setsid ] && exec setsid sh "$gl_job/cmd" "$gl_self"
			[ "$gl_detach" = perl ] && exec perl -MPOSIX -e 'POSIX::setsid(); exec @ARGV' sh "$gl_job/cmd" "$gl_self"
			exec sh "$gl_job/cmd" "$gl_self"
		}
	else
		gl_stage=$1
		if [ -n "$1" ]; then . "$1"; else eval "$gl_text"; fi
		printf '%s\n' "$gl_shown" >"$gl_job/command"
		: >"$gl_job/stdin"
	fi
	for gl_f in stdout stderr main order; do : >"$gl_job/$gl_f"; done # made here for their mode
	# Filled, so that the end can be written down even when the job has filled the disk.
	printf '%200s\n' '' >"$gl_job/exit.new"
	printf '%64s\n' '' >"$gl_job/usage"
	printf '%99s\n' '' >"$gl_job/times"
	boot
	ident $$
	echo "$$ $gl_ident $gl_boot" >"$gl_job/pid" || exit 1
	clock
	gl_begun=$gl_now
	started
	watch &
	gl_dog=$!
	spent
	gl_cpu=$gl_spent
	if [ -e "$gl_job/reason" ]; then
		gl_code=137
	else
		# In the foreground: a shell without job control makes its background commands ignore SIGINT.
		(
			umask "$gl_umask"
			unset gl_umask # it may have come by the environment
			export GPULEASE_JOB_ID="$gl_id"
			cd "$gl_dir" || exit 1
			gl_run
		) <"$gl_job/stdin" >>"$gl_job/stdout" 2>>"$gl_job/stderr" 7>&- 8>&-
		gl_code=$?
	fi
	# Readers of the fifo wake when nobody holds it any more; the watch, which has held it up to here, may be gone before
	# the end is written.
	[ ! -p "$gl_job/done" ] || exec 9<>"$gl_job/done"
	clock
	gl_ended=+$((gl_now - gl_begun)) # see status: a process less on the way
	spent
	gl_cpu=$((${gl_spent:-0} - ${gl_cpu:-0} - (${#gl_spent} == 0)))
	verdict
	cutoff
	[ "$gl_code" -eq 0 ] || trouble "$gl_begun"
	# One that was killed before the watch had counted.
	[ "$gl_code" -eq 137 ] && [ ! -e "$gl_job/ooms" ] && grep -q '^kernel .*Killed process' "$gl_job/trouble" && gl_reason=oom
	# The watch has seen processes that nobody waited for.
	{ read -r gl_i gl_kib gl_tail <"$gl_job/usage"; } 2>/dev/null
	[ "${gl_i:-0}" -le "$gl_cpu" ] || gl_cpu=$gl_i
	printf '%s\n%s\n' "$gl_code $gl_ended $gl_reason" "$gl_cpu ${gl_kib:--1} $gl_capped" 1<>"$gl_job/exit.new" && mv -f "$gl_job/exit.new" "$gl_job/exit"
	over
	exec 9>&-
	rm -f "$gl_job/cmd" "$gl_job/opt" "$gl_job/stdin" "$gl_job/done" "$gl_job/times" "$gl_job/ooms" "$gl_job/answered" ${gl_stage:+"$gl_stage"}
}
