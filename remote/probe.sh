# What the machine is and does: cloud-init's state, its GPUs, its load. See base.sh.
#
#   probe.sh cloudinit   what cloud-init says
#   probe.sh gpu         what nvidia-smi says of the GPUs' health
#   probe.sh cuda        a small computation on every GPU, where there is PyTorch or nvcc
#   probe.sh activity    jobs, logins, GPUs, processors, memory, disk at this moment
#   probe.sh samples SECONDS   the same over time, from the newest so many seconds; starts the sampler when there is none
#   probe.sh unsample    ends the sampler

# census counts the jobs that run and finds the newest end. A job whose supervisor was killed while its command
# lives on is work too.
census() { # gl_running gl_newest
	gl_running=0 gl_newest=
	for gl_job in "$gl_jobs"/*; do
		[ -e "$gl_job/claim" ] || continue
		status
		case $gl_state in
		running) gl_running=$((gl_running + 1)) ;;
		exited)
			[ "${gl_ended%%.*}" -le "${gl_newest%%.*}" ] 2>/dev/null || gl_newest=$gl_ended
			;;
		lost)
			session
			[ -z "$gl_ident" ] || [ -z "$gl_main" ] || gl_running=$((gl_running + 1))
			;;
		esac
	done
}

logins() { # gl_logins: terminals that people have logged in on; what tmux and screen enter there are none
	gl_logins=
	command -v who >/dev/null 2>&1 || return 0
	gl_logins=$(who 2>/dev/null | grep -v -e '(tmux(' -e '(:' -e ':S\.[0-9]' | grep -c ' pts/')
}

hangs() { # whether an answer of bounded is none
	case $1 in *"$(printf '\036')"124 | *"$(printf '\036')"137) ;; *"$(printf '\036')"*) return 1 ;; esac
}

# Two programs that say "gpu N computes" of each GPU and "gpu N fails: why". Only that is a verdict on the machine.
gl_torch='
import torch
if torch.version.cuda:
    for i in range(torch.cuda.device_count()):
        try:
            a = torch.full((256, 256), 2.0, device="cuda:%d" % i)
            total = float((a @ a).sum())
            print("gpu %d computes" % i if total == 2.0 ** 26 else "gpu %d fails: 2 * 2 is %r" % (i, total / 2 ** 24))
        except RuntimeError as e:
            print("gpu %d fails: %s" % (i, str(e).splitlines()[0]))
'
gl_cu='
#include <cstdio>
__global__ void triple(int *p) { p[threadIdx.x] = 3 * threadIdx.x; }
int main() {
	int n = 0, *p, got[256];
	cudaGetDeviceCount(&n);
	for (int i = 0; i < n; i++) {
		cudaSetDevice(i);
		cudaMalloc(&p, sizeof got);
		triple<<<1, 256>>>(p);
		cudaMemcpy(got, p, sizeof got, cudaMemcpyDeviceToHost);
		cudaError_t e = cudaGetLastError();
		if (e == cudaSuccess && got[255] == 765) printf("gpu %d computes\n", i);
		else printf("gpu %d fails: %s\n", i, e == cudaSuccess ? "3 * 255 is wrong" : cudaGetErrorString(e));
	}
}
'

case ${1:-} in
cloudinit)
	gl_text=
	gl_state=absent
	if command -v cloud-init >/dev/null 2>&1; then
		gl_state=present
		gl_text=$(timeout 20 cloud-init status --long 2>&1 | head -c 16384)
	fi
	printf '\036gpulease\nstate %s\n\n%s' "$gl_state" "$gl_text"
	;;
gpu)
	# The answers to three queries, each followed by two record separators. Older cards and drivers do not know the
	# third one, and say so with an error. Then the kernel's lines about GPU errors since boot.
	printf '\036gpulease\narch %s\n\n' "$(uname -m)"
	command -v nvidia-smi >/dev/null 2>&1 || {
		printf '\036127'
		exit 0
	}
	gl_list=$(bounded 30 65536 nvidia-smi --query-gpu=index,name,uuid,memory.total,driver_version --format=csv,noheader,nounits)
	printf '%s\036\036' "$gl_list"
	hangs "$gl_list" || {
		bounded 30 32768 nvidia-smi
		printf '\036\036'
		bounded 30 32768 nvidia-smi --query-gpu=index,ecc.errors.uncorrected.volatile.total --format=csv,noheader,nounits
		printf '\036\036'
		bounded 5 8388608 sh -c 'dmesg 2>/dev/null || sudo -n dmesg 2>/dev/null' | grep -a 'NVRM: Xid' | tail -n 50 | cut -c 1-400
	}
	;;
cuda)
	gl_by=
	gl_said=
	if command -v python3 >/dev/null 2>&1 &&
		gl_said=$(bounded 5 100 python3 -c 'import importlib.util as u; print(u.find_spec("torch") is not None)') && [ "${gl_said%%"
"*}" = True ]; then
		gl_by=torch
		gl_said=$(bounded 20 4096 python3 -c "$gl_torch")
	elif command -v nvcc >/dev/null 2>&1 && gl_dir=$(mktemp -d); then
		gl_by=nvcc
		printf '%s\n' "$gl_cu" >"$gl_dir/probe.cu"
		gl_said=$(bounded 20 4096 sh -c 'nvcc -o "$1/probe" "$1/probe.cu" && "$1/probe"' sh "$gl_dir")
		rm -rf "$gl_dir"
	fi
	printf '\036gpulease\nby %s\n\n%s' "$gl_by" "$gl_said"
	;;
activity)
	clock
	gl_from=$gl_now
	ticks
	gl_first=$gl_ticks
	gpus
	census
	logins
	memory
	disk
	clock
	[ $((gl_now - gl_from)) -ge 25 ] || nap 0.25
	ticks
	printf '\036gpulease\nnow %s\nrunning %s\nended %s\nlogins %s\ncpu %s\nmemory %s\ndisk %s\n\n%s' \
		"$(date +%s.%N)" "$gl_running" "$gl_newest" "$gl_logins" "$gl_first $gl_ticks" "$gl_memory" "$gl_disk" "$gl_smi"
	;;
samples)
	detach
	ensure
	summary "$2"
	;;
unsample)
	{ echo none >"$gl_samples/pid"; } 2>/dev/null
	printf '\036gpulease\n\n'
	;;
sampler)
	sampler
	;;
*)
	fail usage 'unknown verb'
	;;
esac
