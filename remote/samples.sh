# What the machine is doing, over time: a small process that writes down a line each 15 s, and the sum of its lines.
# Part of probe.sh.
#
# In ~/.gpulease/samples: pid, the one sampler that goes on; any other sees within its next step that it is not meant,
# and ends. ring, the lines of at least a day: time, busy percent of the processors, KiB of memory in use and in all,
# percent of the disk in use, whether all GPUs told their utilisation, and five numbers for each GPU: index,
# utilisation, MiB in use, watts, degrees. What cannot be read is -1.
gl_samples=$gl_home/.gpulease/samples
gl_every=${GPULEASE_SAMPLE_EVERY:-1500}

ticks() { # gl_ticks: what all processors have done since boot, and what of it was nothing
	gl_ticks=
	{ read -r gl_i gl_tail <"$gl_proc/stat"; } 2>/dev/null || return 0
	set -- $gl_tail
	[ "$gl_i" = cpu ] && [ $# -ge 8 ] || return 0
	gl_ticks="$(($1 + $2 + $3 + $4 + $5 + $6 + $7 + $8)) $(($4 + $5))"
}

memory() { # gl_memory: KiB in all and available
	gl_memory=$(awk '$1 == "MemTotal:" || $1 == "MemAvailable:" { printf "%s ", $2 }' "$gl_proc/meminfo" 2>/dev/null)
}

disk() { # gl_disk: percent in use, KiB free
	gl_disk=$(bounded 5 4096 df -Pk "$gl_home" | awk 'NR == 2 { for (i = 5; i <= NF; i++) if ($i ~ /^[0-9]+%$/) { print $i + 0, $(i - 1); exit } }')
}

gpus() { # gl_smi: an answer of bounded
	gl_smi=$(printf '\036127')
	command -v nvidia-smi >/dev/null 2>&1 || return 0
	gl_smi=$(bounded 10 65536 nvidia-smi --query-gpu=index,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu --format=csv,noheader,nounits)
}

mine() { # whether this process is the sampler that goes on
	gl_i=
	{ read -r gl_i <"$gl_samples/pid"; } 2>/dev/null
	[ "$gl_i" = "$$ $gl_ident $gl_boot" ]
}

ensure() { # starts the sampler unless one runs
	boot
	if { read -r gl_pid gl_was gl_in <"$gl_samples/pid"; } 2>/dev/null && [ "$gl_pid" != none ]; then
		ident "$gl_pid"
		[ -n "$gl_ident" ] && [ "$gl_ident $gl_boot" = "$gl_was $gl_in" ] && return
	fi
	mkdir -p "$gl_samples" && launch sampler >/dev/null 2>&1
}

sampler() {
	boot
	ident $$
	echo "$$ $gl_ident $gl_boot" >"$gl_samples/pid.$$" && mv -f "$gl_samples/pid.$$" "$gl_samples/pid" || exit 0
	renice -n 19 -p $$ >/dev/null 2>&1
	# Of several that start at once all but the last are gone before any has written a line.
	nap 0.3
	gl_n=$({ wc -l <"$gl_samples/ring" || echo 0; } 2>/dev/null)
	ticks
	while mine; do
		gl_first=$gl_ticks
		span "$gl_every"
		nap "$gl_span"
		mine || break
		ticks
		memory
		disk
		gpus
		line >>"$gl_samples/ring"
		gl_n=$((gl_n + 1))
		[ "$gl_n" -lt 8640 ] || {
			tail -n 5760 "$gl_samples/ring" >"$gl_samples/ring.new" && mv -f "$gl_samples/ring.new" "$gl_samples/ring" && gl_n=5760
		}
	done 2>/dev/null
}

line() { # one line for the ring
	gl_disk=${gl_disk%% *}
	printf '%s\n' "$gl_smi" | awk -F ', *' -v RS='\n|\036' -v head="$(date +%s) $(share $gl_first $gl_ticks) $(inuse $gl_memory) ${gl_disk:--1}" '
		function number(s) { return s ~ /^[0-9]+(\.[0-9]+)?$/ ? int(s + 0.5) : -1 }
		NF == 6 && $1 ~ /^[0-9]+$/ {
			known += number($2) >= 0
			gpus = gpus " " $1 " " number($2) " " number($3) " " number($5) " " number($6)
		}
		NF { rows++; last = $0 }
		END { print head, ((last == "0" && known > 0 && known == rows - 1) ? 1 : 0) gpus }'
}

share() { # total idle total idle: percent that was not idle between the two
	[ $# -eq 4 ] && [ "$3" -gt "$1" ] && [ "$4" -ge "$2" ] && [ $(($3 - $1)) -ge $(($4 - $2)) ] || { echo -1; return; }
	echo $((((($3 - $1) - ($4 - $2)) * 100 + ($3 - $1) / 2) / ($3 - $1)))
}

inuse() { # KiB in all and available: KiB in use and in all
	[ $# -eq 2 ] && echo "$(($1 - $2)) $1" || echo '-1 -1'
}

# summary adds up the lines. A GPU over 5 % is busy.
summary() { # seconds
	printf '\036gpulease\nnow %s\n' "$(date +%s)"
	cat "$gl_samples/ring" 2>/dev/null | awk -v now="$(date +%s)" -v span="$1" '
		function sum(name, n) { if (n >= 0) { total[name] += n; count[name]++; if (!(name in most) || n > most[name]) most[name] = n } }
		function show(name) { if (name in count) printf " %.0f %.0f", total[name] / count[name], most[name]; else printf " -1 -1" }
		NF < 6 || (NF - 6) % 5 || (span > 0 && $1 < now - span) { next }
		/[^-0-9 ]/ { next }
		{
			if (!samples++) first = $1
			last = $1
			sum("cpu", $2); sum("memory", $3); sum("whole", $4); sum("disk", $5)
			busy = 0
			for (i = 7; i <= NF; i += 5) {
				if (!($i in seen)) { seen[$i] = 1; list[gpus++] = $i }
				sum("util" $i, $(i + 1)); sum("mib" $i, $(i + 2)); sum("watt" $i, $(i + 3)); sum("heat" $i, $(i + 4))
				if ($(i + 1) > 5) busy = 1
			}
			if (busy) { worked++; latest = $1 }
			if (busy || $6) known++
		}
		END {
			printf "samples %d %.0f %.0f\nbusy %d %d %s\n", samples, first, last, known, worked, latest
			printf "cpu"; show("cpu"); printf "\nmemory"; show("memory"); show("whole"); printf "\ndisk"; show("disk"); print ""
			for (i = 0; i < gpus; i++) {
				printf "gpu %d", list[i]; show("util" list[i]); show("mib" list[i]); show("watt" list[i]); show("heat" list[i]); print ""
			}
			print ""
		}'
}
