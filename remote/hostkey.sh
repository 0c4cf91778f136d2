# The host key of the leased machine. POSIX sh; the reply is as in files.sh. The new key waits beside the old one until
# the caller has written down its public half.
#
#   hostkey.sh stage              makes the new key, unless it waits there already; tells its public half
#   hostkey.sh switch PUBLIC      puts that key into the old one's place, and has sshd take it
set -u
export LC_ALL=C
key=${GPULEASE_SSH_DIR:-/etc/ssh}/ssh_host_ed25519_key
next=$key.gpulease

fail() { # code text
	printf '\036gpulease\nerror %s %s\n\n' "$1" "$(printf %s "$2" | tr '\n' ' ')"
	exit 0
}

# A simulated machine has a directory of its own for its host key, and reads that at each connection.
simulated() { [ -n "${GPULEASE_SIM_INSTANCE:-}" ]; }

root() {
	if simulated || [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

public() { # of a private key: "ssh-ed25519 AAAA…"
	root ssh-keygen -y -P '' -f "$1" 2>/dev/null </dev/null | cut -d ' ' -f 1,2
}

reload() {
	simulated || root systemctl reload ssh || root systemctl reload sshd || root service ssh reload || root service sshd reload
} 2>/dev/null >&2

# Else it would be the key of the computer that it runs on.
! simulated || [ -n "${GPULEASE_SSH_DIR:-}" ] || fail unsupported 'a simulated machine has no sshd of its own'
command -v ssh-keygen >/dev/null 2>&1 || fail unsupported 'no ssh-keygen'
root true 2>/dev/null || fail unsupported 'no root without a password'
root test -f "$key" || fail unsupported "no $key"

case ${1:-} in
stage)
	made=$(public "$next")
	if [ -z "$made" ]; then
		root rm -f "$next" "$next.pub"
		err=$(root ssh-keygen -q -t ed25519 -N '' -C '' -f "$next" 2>&1 </dev/null) || fail storage "$err"
		made=$(public "$next")
	fi
	[ -n "$made" ] || fail storage "$next cannot be read"
	sync
	printf '\036gpulease\nnew %s\nnow %s\n\n' "$made" "$(public "$key")"
	;;
switch)
	if [ "$(public "$key")" != "$2" ]; then
		[ "$(public "$next")" = "$2" ] || fail moving "the key that waits in $next is another one"
		err=$(root mv -f "$next" "$key" 2>&1) || fail storage "$err"
		root mv -f "$next.pub" "$key.pub" 2>/dev/null
		sync
	fi
	reload || fail storage 'sshd could not be told to read its keys again'
	printf '\036gpulease\n\n'
	;;
*)
	fail usage 'unknown verb'
	;;
esac
