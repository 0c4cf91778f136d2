# What the machine's scripts share; it is put in front of each of them. POSIX sh: dash, bash and busybox all run it.
#
# Times are in centiseconds. A reply starts with the line "\036gpulease", then "key value" lines, an empty line, and
# raw bytes.
#
# All variables begin with gl_: a name that the user exports must reach the job unchanged.
set -u
gl_self=${gl_self:-$0}
gl_home=${HOME:-$(cd && pwd)}
gl_jobs=$gl_home/.gpulease/jobs
gl_proc=${GPULEASE_PROC:-/proc}
[ -r "$gl_proc/self/stat" ] || gl_proc=
gl_umask=${gl_umask:-$(umask)}
umask 077

fail() { # code text
	printf '\036gpulease\nerror %s %s\n\n' "$1" "$2"
	exit 0
}

nap() { sleep "$1" 2>/dev/null || sleep 1; }

clock() { # gl_now: centiseconds that never jump
	if [ -n "$gl_proc" ] && read -r gl_now gl_i <"$gl_proc/uptime" 2>/dev/null; then
		gl_i=${gl_now%.*} gl_now=1${gl_now#*.}
		gl_now=$((gl_i * 100 + gl_now - 100))
	else
		gl_now=$(date +%s)00
	fi
}

span() { # centiseconds as "1.23", for sleep and timeout
	gl_span=$(($1 % 100 + 100))
	gl_span=$(($1 / 100)).${gl_span#1}
}

ident() { # gl_ident: what tells this process from a later one with the same pid; empty when it is gone
	gl_ident=
	if [ -n "$gl_proc" ]; then
		{ read -r gl_stat <"$gl_proc/$1/stat"; } 2>/dev/null || return 0
		set -- ${gl_stat##*) }
		case $1 in [ZXx]) ;; *) gl_ident=${20} ;; esac
	else
		# The supervisor's arguments name the job. Its start time would do, but ps computes that anew each time, and the
		# second may differ.
		gl_ident=$(ps -o args= -p "$1" 2>/dev/null | tr -s ' ' _)
	fi
}

boot() {
	gl_boot=-
	[ -n "$gl_proc" ] && { read -r gl_boot <"$gl_proc/sys/kernel/random/boot_id"; } 2>/dev/null
	return 0
}

oomkills() { # gl_ooms: how often the kernel has killed for memory since boot
	gl_ooms=$(grep '^oom_kill ' "$gl_proc/vmstat" 2>/dev/null)
}

status() { # gl_state: none, running, exited or lost; reads the end before it reads the sizes
	gl_state=none gl_code= gl_reason= gl_started= gl_ended= gl_pid= gl_cpu= gl_kib= gl_hang= gl_capped=
	[ -e "$gl_job/claim" ] || return 0
	gl_state=running
	if { read -r gl_pid gl_was gl_in gl_started <"$gl_job/pid"; } 2>/dev/null; then
		[ -n "$gl_started" ] || { read -r gl_started <"$gl_job/began"; } 2>/dev/null
		if [ ! -e "$gl_job/exit" ]; then
			boot
			ident "$gl_pid"
			[ "$gl_ident" = "$gl_was" ] && [ "$gl_boot" = "$gl_in" ] || gl_state=lost
		fi
	elif [ -n "$(find "$gl_job/claim" -prune -mmin +1 2>/dev/null)" ]; then
		gl_state=lost
	fi
	# Looked at again: the supervisor may have written it and gone between the two tests.
	if { { read -r gl_code gl_ended gl_reason && { read -r gl_cpu gl_kib gl_capped || :; }; } <"$gl_job/exit"; } 2>/dev/null; then
		gl_state=exited
		case $gl_ended in +*) since ;; esac
	else
		{ read -r gl_cpu gl_kib gl_hang <"$gl_job/usage"; } 2>/dev/null
	fi
	return 0
}

since() { # gl_ended, which is how long after the start, as wall time
	for gl_i in 1 2 3 4 5 6 7 8 9; do # the start may only just be written down
		[ -z "$gl_started" ] || break
		nap 0.02
		{ read -r gl_started <"$gl_job/began"; } 2>/dev/null
	done
	gl_i=${gl_started#*.}
	case $gl_i in [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]) ;; *) gl_i=000000000 ;; esac
	gl_tail=${gl_i#??} # kept: a job that is over at once must not end before it starts
	gl_i=1${gl_i%???????}
	gl_i=$((${gl_started%%.*}00 + gl_i - 100 + gl_ended))
	gl_ended=$((gl_i % 100 + 100))
	gl_ended=$((gl_i / 100)).${gl_ended#1}$gl_tail
}

sizes() { # gl_osize gl_esize, and gl_wrote: when the job last wrote, in seconds; empty where that cannot be told
	gl_osize=0 gl_esize=0 gl_wrote=
	[ -s "$gl_job/stdout" ] || [ -s "$gl_job/stderr" ] || return 0
	if gl_i=$(stat -c '%s %Y' "$gl_job/stdout" "$gl_job/stderr" 2>/dev/null); then
		set -- $gl_i
		gl_osize=$1 gl_esize=$3
		[ "$1" -eq 0 ] || gl_wrote=$2
		[ "$3" -eq 0 ] || [ "$4" -lt "${gl_wrote:-0}" ] || gl_wrote=$4
		return
	fi
	set -- $(for gl_f in stdout stderr; do { wc -c <"$gl_job/$gl_f" || echo 0; } 2>/dev/null; done)
	gl_osize=${1:-0} gl_esize=${2:-0}
}

session() { # gl_main: pid and session of the command, empty when that number may be another's by now
	gl_main=
	[ ! -e "$gl_job/exit" ] || return 0
	{ read -r gl_i gl_i gl_in gl_i <"$gl_job/pid" && read -r gl_main gl_tail <"$gl_job/main"; } 2>/dev/null || return 0
	boot
	ident "$gl_main"
	set -- $gl_tail
	[ "$gl_boot" = "$gl_in" ] && { [ -z "$gl_ident" ] || [ "$gl_ident" = "${20:-$gl_ident}" ]; } || gl_main=
}

# bounded runs a command whose hanging must not hold us up; one that waits in the kernel for a dead device cannot even
# be killed. It prints what the command says, a record separator and its exit status: 124, or none, when it hangs.
bounded() { # seconds bytes command...
	gl_for=$1 gl_most=$2
	shift 2
	if ! command -v timeout >/dev/null 2>&1; then
		{ "$@" 2>&1; printf '\036%s' "$?"; } </dev/null | head -c "$gl_most"
		return
	fi
	# In the background, for a pipeline waits for all its parts: the reader ends it, at the end or when its time is up.
	(
		{ timeout -k 1 "$gl_for" "$@" 2>&1; printf '\036%s' "$?"; } </dev/null 2>/dev/null &
	) | timeout "$((gl_for + 2))" head -c "$gl_most"
}

detach() { # how a process gets a session of its own here
	gl_detach=plain
	if command -v setsid >/dev/null 2>&1; then
		gl_detach=setsid
	elif command -v perl >/dev/null 2>&1; then
		gl_detach=perl
	fi
}

# launch runs this script in a session of its own and prints what it says before it lets go of stdout. bash's job
# control is used where there is bash, because it leaves SIGINT as it is for what runs in the background.
launch() { # verb argument...
	set -- sh "$gl_self" "$@"
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
