# Starting a short job, see "brief" in job.sh. It is a script of its own because it is read at each start.
#
# It is run as a part of another, which sets gl_text, gl_dir and gl_watch, the script that supervises.

# brief is start for a job that has come as text: gl_text sets its options and defines gl_run. It waits for the end of the
# job, at most $1 centiseconds. Each process that is not started here counts: this is most of the time of a short command.
brief() { # wait
	[ ! -e "$gl_job/claim" ] || return 0
	[ -n "$gl_proc" ] && [ "$gl_detach" = setsid ] || fail long 'only the long way starts a job here'
	gl_stage=$gl_job/stage.$$
	mkdir "$gl_job" 2>/dev/null || mkdir -p "$gl_job" || fail storage "$gl_job cannot be made"
	{ printf '%s' "$gl_text" >"$gl_stage"; } 2>/dev/null && [ -s "$gl_stage" ] || {
		rm -f "$gl_stage"
		rmdir "$gl_job" 2>/dev/null
		fail storage 'the job could not be written down'
	}
	if ! cd "$gl_dir" 2>/dev/null; then
		rm -f "$gl_stage"
		rmdir "$gl_job" 2>/dev/null
		fail directory "$(printf %s "$gl_dir" | tr '\n' ' ')"
	fi
	cd "$gl_home"
	umask "$gl_umask"
	gl_umask=$gl_umask setsid -f sh "$gl_watch" supervise "$gl_id" "$gl_stage" "$1" </dev/null 2>/dev/null | { read -r gl_i || exit 1; [ "$1" -eq 0 ] || read -r gl_i || exit 0; } && gl_ack=started || gl_ack=
	# A setsid without -f has done nothing.
	gl_self=$gl_watch
	[ "$gl_ack" = started ] || [ -e "$gl_job/claim" ] || gl_ack=$(launch supervise "$gl_id" "$gl_stage" 0 2>/dev/null)
	umask 077
	[ "$gl_ack" = started ] || [ -e "$gl_job/claim" ] || fail storage 'the supervisor did not start'
}

gl_id=$2
gl_job=$gl_jobs/$gl_id
detach
cd "$gl_home" 2>/dev/null
clock
gl_from=$gl_now
brief "$3"
clock
await $((gl_from + $3 - gl_now))
show "$4" "$5"
