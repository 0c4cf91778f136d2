# The processes of a job: found, measured, ended. Part of job.sh.

# tree finds the living processes of the job: by its scope, its session and its descent, and with "marks" by the mark
# in their environment too.
tree() { # main marks: gl_alive, their pids; gl_used, their processor time; gl_pages, their resident memory
	gl_found=$({
		gl_scope=
		{ read -r gl_scope <"$gl_job/scope"; } 2>/dev/null && sed 's/^/mark /' "$gl_scope/cgroup.procs" 2>/dev/null
		if [ -n "$gl_proc" ]; then
			[ "$2" != marks ] || grep -Flzx "GPULEASE_JOB_ID=$gl_id" "$gl_proc"/[0-9]*/environ 2>/dev/null | sed 's,/environ$,,;s,.*/,mark ,'
			cat "$gl_proc"/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9]*\) (.*) \(.*\)/proc \1 \2/p'
		else
			ps -A -o pid= -o state= -o ppid= -o pgid= | sed 's/^/proc /;s/$/ 0/'
		fi
	} | awk -v main="$1" '
		$1 == "mark" { in_job[$2] = 1; next }
		$3 ~ /^[ZXx]/ { dead[$2] = 1; next }
		{
			parent[$2] = $4
			used[$2] = $14 + $15 + $16 + $17
			pages[$2] = $24
			if (main != "" && ($2 == main || $5 == main || $6 == main)) in_job[$2] = 1
		}
		END {
			do {
				more = 0
				for (p in parent) if (!(p in in_job) && (parent[p] in in_job)) { in_job[p] = 1; more = 1 }
			} while (more)
			for (p in in_job) if (!(p in dead)) { list = list p " "; u += used[p]; r += pages[p] }
			printf "%.0f %.0f %s", u, r, list
		}')
	gl_used=${gl_found%% *} gl_found=${gl_found#* }
	gl_pages=${gl_found%% *} gl_alive=${gl_found#* }
}

# scope moves a process into a cgroup of its own, so that whatever comes of it can be found and ended, whichever way it
# hides. It needs systemd and root; without them there is no scope.
scope() { # pid
	gl_root=
	[ "$(id -u)" = 0 ] || gl_root='sudo -n'
	$gl_root busctl --timeout=3 --allow-interactive-authorization=no call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
		org.freedesktop.systemd1.Manager StartTransientUnit 'ssa(sv)a(sa(sv))' "gpulease-$gl_id.scope" fail \
		2 PIDs au 1 "$1" CollectMode s inactive-or-failed 0 </dev/null >/dev/null 2>&1 || return 0
	# systemd says yes before it does it.
	for gl_i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
		gl_name=$(sed -n "s,^[^:]*:[^:]*:\(/.*/gpulease-$gl_id\.scope\)\$,\1,p" "$gl_proc/$1/cgroup" 2>/dev/null | head -n 1)
		for gl_f in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
			[ -n "$gl_name" ] && [ -f "$gl_f$gl_name/cgroup.procs" ] || continue
			echo "$gl_f$gl_name" >"$gl_job/scope"
			return
		done
		nap 0.01
	done
}

killscope() { # kills the whole scope in one step: what forks faster than it is killed one by one cannot get away
	{ read -r gl_scope <"$gl_job/scope"; } 2>/dev/null && [ -f "$gl_scope/cgroup.kill" ] || return 0
	if [ "$(id -u)" = 0 ]; then
		echo 1 >"$gl_scope/cgroup.kill"
	else
		echo 1 | sudo -n tee "$gl_scope/cgroup.kill"
	fi >/dev/null 2>&1
}

# endall ends every process of the job. Each signal goes to a process once, since a second interrupt cuts many programs
# short in their cleaning up.
endall() { # grace: 1 and gl_alive if some are left
	session # once: the job may exit in the middle of this, and its session must still be known
	for gl_sig in INT TERM KILL; do
		[ "$gl_sig" = KILL ] || [ "$1" -gt 0 ] || continue
		clock
		gl_until=$((gl_now + $1 / 2))
		[ "$gl_sig" = KILL ] && gl_until=$((gl_now + 500)) && killscope
		gl_sent=' '
		while :; do
			tree "$gl_main" marks
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
