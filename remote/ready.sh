# Waiting for a job with all read that starts one, see ready.go. A connection keeps one of these on the machine, so that a short
# command costs few processes more than a bare one. It is a supervisor that does not know its job yet.
#
# It is an "sh -s" in a session of its own. Its input and its stdout are the connection's channel, and who has started it
# goes, and lets go of the channel, when a line comes on 7 or nobody holds that any more. It reads this file first and then, when there is
# a job, gl_id, gl_dir, gl_text and the call of gl_ready. Cut short, that does nothing, since the call is its last line.
#
# It answers when the job has ended or the wait is over, and else not: whatever is not as it should be, it goes, and the job is started
# in the other way.

# startup calls $1 for each file that a shell reads when it is started, with a descriptor for it.
startup() {
	"$1" 3 "$gl_home/.bashrc" && "$1" 4 "$gl_home/.zshenv" && "$1" 5 "$gl_home/.config/fish/config.fish" && "$1" 6 /etc/bash.bashrc && "$1" 9 /etc/zsh/zshenv
}

hold() { # descriptor file
	[ ! -f "$2" ] || [ ! -r "$2" ] || eval "exec $1<\"\$2\""
}

# fresh is whether a shell that is started now would have the same variables: whether the file is the one that it was, if it was
# there, and has not changed since the pipe was made. Some shells compare whole seconds.
fresh() { # descriptor file
	if [ -f "$2" ] && [ -r "$2" ]; then
		[ "$2" -ef "/proc/self/fd/$1" ] && [ /proc/self/fd/7 -nt "$2" ]
	else
		[ ! -e "/proc/self/fd/$1" ]
	fi
}

# started says that it is, and notes the time. The wall clock was asked before, and what has passed since is known: a process less.
started() {
	trap '' PIPE # from here on the job is this shell's, whether anybody hears of it or not
	printf '\036started\n' >&8
	trap - PIPE
	gl_i=$((gl_begun - gl_warm))
	if [ -n "$gl_wall" ] && [ "$gl_i" -lt 60000 ]; then
		gl_i=$((gl_wall + gl_i))
		gl_f=$((gl_i % 100 + 100))
		echo "$((gl_i / 100)).${gl_f#1}0000000" >"$gl_job/began"
	else
		date +%s.%N >"$gl_job/began" 7>&- 8>&- &
	fi
}

answer() {
	status
	show "$gl_heads" "$gl_tails" >&8
	echo >&7
}

waited() {
	# Not with ":", at which a shell ends when the disk is full. Then the caller asks in the other way.
	{ true >"$gl_job/answered"; } 2>/dev/null || return 0
	(answer) # a process of its own: the end of the job ends the watch, but not the answer
	exec 7>&- 8>&-
}

over() {
	trap '' PIPE
	# A watch that is not to answer yet, and has been told to go, does not.
	clock
	[ $((gl_now - gl_begun)) -lt "$gl_wait" ] || wait "$gl_dog" 2>/dev/null
	[ -e "$gl_job/answered" ] || answer
	exec 7>&- 8>&-
}

gl_ready() { # wait head tail
	gl_job=$gl_jobs/$gl_id gl_heads=$2 gl_tails=$3
	startup fresh && [ ! -e "$gl_job/claim" ] && [ -f "$gl_self" ] && [ -f "$gl_verbs" ] && cd "$gl_dir" 2>/dev/null && cd "$gl_home" || exit
	mkdir "$gl_job" 2>/dev/null || mkdir -p "$gl_job" || exit
	# Who has given up closes the channel first and asks in the other way then. What that says of the job must stay true.
	echo || exit
	exec 8>&1 >/dev/null </dev/null 3<&- 4<&- 5<&- 6<&- 9<&-
	supervise '' "$1"
}

detach
[ -n "$gl_proc" ] && [ "$gl_detach" = setsid ] && cd "$gl_home" || exit
startup hold
# When it is, in centiseconds, and when that was.
clock
gl_warm=$gl_now gl_wall=$(date +%s.%N)
case ${gl_wall#*.} in
[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]) gl_i=1${gl_wall#*.} gl_i=${gl_i%???????} gl_wall=$((${gl_wall%%.*}00 + gl_i - 100)) ;;
*) gl_wall= ;;
esac
