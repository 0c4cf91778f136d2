# What the machine is: cloud-init's state, and its GPUs. POSIX sh. A reply starts with "\036gpulease"; see job.sh.
set -u
case ${1:-} in
cloudinit)
	text=
	state=absent
	if command -v cloud-init >/dev/null 2>&1; then
		state=present
		text=$(timeout 20 cloud-init status --long 2>&1 | head -c 16384)
	fi
	printf '\036gpulease\nstate %s\n\n%s' "$state" "$text"
	;;
gpu)
	# The output of three queries, each followed by a record separator.
	command -v nvidia-smi >/dev/null 2>&1 || {
		printf '\036gpulease\nstatus 127\n\n'
		exit 0
	}
	fields=index,name,uuid,memory.total,driver_version
	text=$(timeout 30 nvidia-smi --query-gpu=$fields --format=csv,noheader,nounits 2>&1)
	printf '\036gpulease\nstatus %s\n\n%s\036' "$?" "$text"
	timeout 30 nvidia-smi 2>&1 | head -c 32768
	printf '\036'
	# Older cards and drivers do not know this one, and say so with an error.
	timeout 30 nvidia-smi --query-gpu=index,ecc.errors.uncorrected.volatile.total --format=csv,noheader,nounits 2>/dev/null
	printf '\036'
	;;
esac
