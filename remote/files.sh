# Files to and from the leased machine. POSIX sh: dash, bash and busybox all run it. A reply starts with the line
# "\036gpulease", then "key value" lines, an empty line, and raw bytes. Lists of paths are separated by NUL; every
# path starts with "./" or "/", so that no tool takes it for an option.
#
#   files.sh probe DIR MAKE       paths on stdin: what is there, the hashes of the files, the last push's manifest
#   files.sh seen DIR             what stat says of the files that are as the manifest has them, for the next probe
#   files.sh apply DIR HOW        a compressed tar on stdin: puts each file in place by rename, then deletes
#   files.sh take DIR             the same for several, each as a line "HOW", lines "count" each followed by so many bytes of it,
#                                 and "0". It may be started before there is DIR
#   files.sh parts DIR KEY        which parts of a large file have come
#   files.sh part DIR KEY HOW     lines "number offset count", each followed by so many bytes of that file
#   files.sh join DIR KEY PATH SIZE MODE TIME   lines "offset count" on stdin, each when that part has come, and at last "end HASH":
#                                 puts the large file in its place
#   files.sh names BASE           DIR, DEPTH (0: any) and a pattern on stdin, and so on: what is below DIR
#   files.sh list BASE MAX HASH [PATH …]   paths, or else on stdin: the files at and below them, their sizes and times; their hashes, if all
#                                 together are not over HASH bytes
#   files.sh sums BASE HOW        paths of files on stdin: a hash for each. HOW is bulk for small files, of which none may
#                                 go away meanwhile, or each for large ones; then "-" stands for one that went away
#   files.sh send BASE HOW        paths of files on stdin: a tar of them; HOW is none, or best: compressed where that helps
#   files.sh ranges BASE PATH HOW   lines "offset count" on stdin: these bytes of the file, compressed or not as with send
#
# With "held" and a number before the verb so many bytes of stdin are its input, and it is ended when stdin ends. With "held -" the
# number is the first line of stdin.
# With "inmemory" before the verb what has to be noted meanwhile is kept in memory: what a job has made can be fetched when it has
# filled the disk.
#
# A push's manifest is ~/.gpulease/sync/KEY, KEY being the hash of the directory's real path. Only this package reads
# what is in it. A push unpacks into DIR/.gpulease-stage.PID, on the same disk, so that a rename can put it in place.
# Several may unpack at once; what they put in place they put one after the other. The parts of a large file wait in
# DIR/.gpulease-stage.large-KEY, so that a push that breaks off goes on from there.
set -u
export LC_ALL=C # names are bytes: elsewhere sed does not match one that is not UTF-8
home=${HOME:-$(cd && pwd)}
sync=$home/.gpulease/sync
trap 'exit 1' HUP INT PIPE TERM # so that the trap for EXIT cleans up when the caller is gone

fail() { # code text
	printf '\036gpulease\nerror %s %s\n\n' "$1" "$(printf %s "$2" | tr '\n' ' ')"
	exit 0
}

full() { fail storage 'no room for a list of files'; }

# room fails when there is no space left for more: then what has been written into $work may be half of it.
room() { { printf '%4096s' '' >"$work/room"; } 2>/dev/null || full; }

# quick says whether openssl can hash. It uses the processor's own instructions, which sha256sum often does not.
quick() { openssl dgst -sha256 -r </dev/null >/dev/null 2>&1; }

sum() { # hashes of the files named on stdin, one on a line, in their order
	if quick; then
		# It writes names as they are, so that one with a newline in it could look like a hash.
		xargs -0 -r sh -c '
			case $* in
			*"
"*) exec sha256sum -- "$@" ;;
			esac
			exec openssl dgst -sha256 -r "$@"' sh
	elif has sha256sum; then
		xargs -0 -r sha256sum --
	else
		xargs -0 -r shasum -a 256 --
	fi 2>/dev/null | sed -n 's/^\\\{0,1\}\([0-9a-f]\{64\}\) [ *].*/\1/p'
}

sumone() {
	if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | cut -c 1-64
}

sumstream() { # of what comes
	if quick; then openssl dgst -sha256 -r | cut -c 1-64; else sumone; fi
}

sumlarge() {
	h=$(openssl dgst -sha256 -r 2>/dev/null <"$1" | cut -c 1-64)
	case $h in
	*[!0-9a-f]* | '') sumone 2>/dev/null <"$1" ;;
	*) echo "$h" ;;
	esac
}

has() { command -v "$1" >/dev/null 2>&1; }

# squeeze says which compression is worth its time for data like that on stdin, of which it reads 1 MiB. $1 is a file
# to use.
squeeze() {
	how=none
	if has zstd; then with=zstd most=90; elif has gzip; then with=gzip most=70; else return; fi
	head -c 1048576 >"$1" 2>/dev/null
	full=$(count "$1")
	small=$($with -1 -c <"$1" 2>/dev/null | wc -c)
	rm -f "$1"
	[ "$((small * 100))" -ge "$((full * most))" ] || how=$with
}

pressed() { # what the command $2 … writes, with the compression $1
	with=$1
	shift
	case $with in
	zstd) "$@" | zstd -1 -q -c --no-check ;;
	gzip) "$@" | gzip -1 -c ;;
	*) "$@" ;;
	esac
}

unpressed() { # gives stdin, which was compressed with $1, to the command $2 …
	with=$1
	shift
	case $with in
	zstd) zstd -d -q -c 2>/dev/null | "$@" ;;
	gzip) gzip -d -c 2>/dev/null | "$@" ;;
	*) "$@" ;;
	esac
}

takeparts() {
	printf '\036gpulease\n'
	while read -r number at count; do
		said=$(dd of="$stage/data" bs=1M iflag=fullblock,count_bytes oflag=seek_bytes conv=notrunc seek="$at" count="$count" 2>&1)
		case $said in
		*[!0-9]"$count byte"[s\ ]*) : >"$stage/done/$number" && echo "part $number" || fail storage "$stage cannot be written to" ;;
		*)
			cat >/dev/null
			fail storage "$said"
			;;
		esac
	done
	printf 'whole yes\n\n'
}

givecome() { # of the large file those parts that stdin says have come; to fd 3 what hash all should have
	while read -r at count; do
		[ "$at" != end ] || {
			printf '%s ' "$count" >&3
			break
		}
		dd if="$stage/data" bs=1M iflag=fullblock,skip_bytes,count_bytes skip="$at" count="$count" 2>/dev/null
	done
}

# sumcome writes both hashes, where there is a Python: it takes half the processor's time, since nothing is copied from one
# process to the next. Where that is none to count on it fails before it reads anything. What lies in this directory is not
# what it imports (-I).
sumcome() {
	has python3 && python3 -IS -c '
import hashlib, sys
total, room = hashlib.sha256(), memoryview(bytearray(1 << 20))
with open(sys.argv[1], "rb", buffering=0) as data:
    for line in sys.stdin:
        offset, count = line.split()
        if offset == "end":
            print(count, total.hexdigest())
            break
        data.seek(int(offset))
        left = int(count)
        while left > 0:
            got = data.readinto(room[:min(left, len(room))])
            if not got:
                break
            total.update(room[:got])
            left -= got
' "$stage/data" 2>/dev/null
}

giveranges() { # of the file $1
	while read -r at count; do
		dd if="$1" bs=1M iflag=fullblock,skip_bytes,count_bytes skip="$at" count="$count" 2>/dev/null || return
	done
}

givefiles() { # that are listed in $1; of a long list xargs may make several archives, one behind the other
	xargs -0 -r tar -chf - -- <"$1" 2>/dev/null
}

# alone waits until no other push is putting files into this directory. The lock goes with the process.
alone() {
	has flock || return 0
	exec 9>"$sync/$key.lock" && flock 9
}

# ranged says whether dd can read and write at a byte, and tells how many bytes there were: busybox's may not.
ranged() {
	case $(dd if=/dev/null of=/dev/null iflag=fullblock,skip_bytes,count_bytes oflag=seek_bytes bs=1 count=0 2>&1) in
	*'0 bytes'*) echo yes ;;
	*) echo no ;;
	esac
}

enter() { # goes to the directory; key: the name of its manifest
	dir=$1
	cd "$home" 2>/dev/null
	cd "$dir" 2>/dev/null || fail directory "$dir"
	if has sha256sum; then key=$(pwd -P | sha256sum); else key=$(pwd -P | shasum -a 256); fi
	key=${key%% *}
}

# probestat is what probe does with GNU's tools: what stat says of each path that is there, and the hashes of those files
# of which it does not say the same as when Push last found them to be as the manifest has them. Of a file that has
# been changed, or replaced, or had its times set, stat says another change time.
probestat() {
	xargs -0 -r stat --printf '%f %i %s %.9Y %.9Z %n\0' <"$work/list" >"$work/types" 2>/dev/null
	known=$sync/$key.seen
	[ -f "$known" ] || known=/dev/null
	sort -z "$work/types" | comm -z -23 - "$known" 2>/dev/null | sed -z -n 's/^8... [0-9]* [0-9]* [0-9.-]* [0-9.-]* //p' >"$work/new"
	[ -s "$work/new" ] || return 0
	xargs -0 -r sha256sum -z -- <"$work/new" >"$work/sums" 2>/dev/null || xargs -0 -r sh -c '
		for f; do
			[ -r "$f" ] || printf "%s\0" "$f"
		done' sh <"$work/new" >"$work/closed"
}

# probeletters is the same for any tools: one letter a path, for file, executable, unreadable file, directory, link,
# other, none; and the hashes of all files, in their order.
probeletters() {
	xargs -0 -r sh -c '
		for f; do
			t=-
			if [ -L "$f" ]; then t=l
			elif [ -d "$f" ]; then t=d
			elif [ -f "$f" ]; then
				t=f
				[ ! -x "$f" ] || t=x
				[ -r "$f" ] || t=u
			elif [ -e "$f" ]; then t=o
			fi
			printf %s "$t"
		done' sh <"$work/list" >"$work/types"
	xargs -0 -r sh -c '
		for f; do
			[ ! -L "$f" ] && [ -f "$f" ] && [ -r "$f" ] && printf "%s\0" "$f"
		done' sh <"$work/list" | sum >"$work/sums"
}

count() { # bytes of a file
	echo $(($(wc -c <"$1")))
}

lengths() { # lines "part BYTES" for the files, of which none has a newline in its name
	wc -c "$@" | while read -r bytes name; do
		[ "$#" -gt 0 ] || break # what is left is their total
		echo "part $bytes"
		shift
	done
}

bare() { # whether nothing is in this directory
	for e in * .[!.]* ..?*; do
		[ ! -e "$e" ] && [ ! -L "$e" ] || return 1
	done
}

inside() { # whether no directory above $1 is a symbolic link
	p=$1
	while :; do
		case $p in */*) p=${p%/*} ;; *) return 0 ;; esac
		[ ! -L "$p" ] || return 1
	done
}

# place moves the staged directory $1 into its place: a directory that is not there yet as a whole, the rest file
# by file. A rename replaces a file in one step.
place() {
	for e in "$stage/t/$1"/* "$stage/t/$1"/.[!.]* "$stage/t/$1"/..?*; do
		[ -d "$e" ] && [ ! -L "$e" ] || continue
		to=$1/${e##*/}
		if [ -L "$to" ]; then
			fail conflict "$to is a symbolic link on the machine"
		elif [ -d "$to" ]; then
			place "$to"
		elif [ -e "$to" ]; then
			fail conflict "$to is not a directory on the machine"
		else
			mv "$e" "$to" 2>"$stage/err" || fail storage "$(cat "$stage/err")"
		fi
	done
	set -- "$1" 0
	for e in "$stage/t/$1"/* "$stage/t/$1"/.[!.]* "$stage/t/$1"/..?*; do
		[ -d "$e" ] && [ ! -L "$e" ] || [ ! -e "$e" ] && [ ! -L "$e" ] || set -- "$1" "$(($2 + 1))"
	done
	[ "$2" -gt 0 ] || return 0
	to=./$1/
	if [ "$2" -gt 200 ]; then
		find "$stage/t/$1" -maxdepth 1 ! -type d -exec sh -c 'd=$1 && shift && exec mv -f "$@" "$d"' sh "$to" {} + 2>"$stage/err"
	else
		set --
		for e in "$stage/t/$to"* "$stage/t/$to".[!.]* "$stage/t/$to"..?*; do
			[ -d "$e" ] && [ ! -L "$e" ] || [ ! -e "$e" ] && [ ! -L "$e" ] || set -- "$@" "$e"
		done
		mv -f "$@" "$to" 2>"$stage/err"
	fi && [ ! -s "$stage/err" ] || fail storage "$(cat "$stage/err")"
}

# staged makes an empty directory to unpack into.
staged() {
	for e in .gpulease-stage.*; do
		[ ! -e "$e" ] || { find . -maxdepth 1 -name '.gpulease-stage.*' -mmin +120 -exec rm -rf {} + 2>/dev/null; break; }
	done
	stage=./.gpulease-stage.$$
	mkdir -m 700 "$stage" 2>/dev/null || { rm -rf "$stage" && mkdir -m 700 "$stage"; } 2>/dev/null || fail storage "$dir cannot be written to"
}

takechunks() { # an archive
	while read -r count && [ "$count" -gt 0 ]; do
		dd bs=512k iflag=fullblock,count_bytes count="$count" 2>/dev/null || break
	done
}

# putall puts what was unpacked in its place, and deletes. removed: how many files. err is what the unpacking said.
putall() {
	[ -f "$stage/end" ] || fail storage "not received whole: $err"
	[ -d "$sync" ] || (umask 077 && mkdir -p "$sync") 2>/dev/null || fail storage "$sync cannot be made"
	alone
	# Until all is done the manifest names the old and the new: whatever an end in the middle leaves is known as ours.
	[ ! -f "$stage/both" ] || mv -f "$stage/both" "$sync/$key" || fail storage "$sync cannot be written to"
	: >"$stage/removed"
	[ ! -s "$stage/before" ] || xargs -0 sh "$0" remove <"$stage/before" >>"$stage/removed"
	[ ! -d "$stage/t" ] || placequick || place .
	[ ! -s "$stage/after" ] || xargs -0 sh "$0" remove <"$stage/after" >>"$stage/removed"
	[ ! -f "$stage/new" ] || mv -f "$stage/new" "$sync/$key" || fail storage "$sync cannot be written to"
	removed=0
	[ ! -s "$stage/removed" ] || removed=$(count "$stage/removed")
}

# placequick is place for all that was staged, in one process. It stops where something is not as it is nearly always, and what
# it has not moved is for place, which also says what is wrong. That it has come to its end only its own word tells.
placequick() {
	has perl && [ "$(perl -e '
		sub place {
			my ($d) = @_;
			opendir(my $h, "$ARGV[0]/$d") or exit 1;
			for my $e (grep { $_ ne "." && $_ ne ".." } readdir $h) {
				my ($from, $to) = ("$ARGV[0]/$d/$e", "$d/$e");
				if (!-l $from && -d $from) {
					exit 1 if -l $to || -e $to && !-d $to;
					if (-d $to) { place($to); next }
				}
				rename $from, $to or exit 1;
			}
		}
		place(".");
		print "placed"' "$stage/t" 2>/dev/null)" = placed ]
}

# held is run with $1 bytes of stdin as its input. When stdin ends it kills all that this script has started: each session has a
# process group of its own.
held() {
	bytes=$1
	shift
	[ "$bytes" != - ] || read -r bytes || exit 1
	held=$bytes
	exec 3<&0
	{
		head -c "$bytes" <&3
		{
			while read -r rest <&3; do :; done
			kill -TERM -$$
		} >/dev/null 2>&1 & # and sshd ends stdin when this script has ended
	} | run "$@" 3<&-
	exit
}

run() { # verb arguments
	trap 'exit 1' HUP INT PIPE TERM # again: behind a pipe the shell has forgotten
	[ "${1:-}" != inmemory ] || {
		shift
		[ ! -d /dev/shm ] || export TMPDIR=/dev/shm
	}
	case ${1:-} in
	probe)
		work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT || fail storage 'no temporary directory'
		cat >"$work/list" && : >"$work/types" && : >"$work/sums" && : >"$work/closed" || fail storage 'no temporary file'
		[ "$(count "$work/list")" = "$held" ] || exit 1 # the caller is gone, and nothing is to be made
		cd "$home" 2>/dev/null
		[ "$3" = no ] || mkdir -p "$2" 2>/dev/null
		[ -d "$2" ] || [ "$3" = no ] || fail storage "$2 cannot be made"
		manifest=/dev/null
		style=letters
		if [ -d "$2" ]; then
			enter "$2"
			[ ! -f "$sync/$key" ] || manifest=$sync/$key
			if bare; then
				style=letters # none of these is there
			elif comm -z /dev/null /dev/null 2>/dev/null; then
				style=stat
				probestat
			else
				probeletters
			fi
		fi
		room
		how=none
		if has zstd; then how=zstd; elif has gzip; then how=gzip; fi
		many=no
		! has flock || many=yes
		printf '\036gpulease\nhow %s\nmany %s\nranged %s\nstyle %s\nnow %s\n' "$how" "$many" "$(ranged)" "$style" "$(date +%s)"
		lengths "$work/types" "$manifest" "$work/sums" "$work/closed"
		echo
		cat "$work/types" "$manifest" "$work/sums" "$work/closed"
		;;
	seen)
		enter "$2"
		(umask 077 && sort -z >"$sync/$key.seen.$$") 2>/dev/null && mv -f "$sync/$key.seen.$$" "$sync/$key.seen" || fail storage "$sync cannot be written to"
		printf '\036gpulease\n\n'
		;;
	apply)
		enter "$2"
		staged
		trap 'rm -rf "$stage"' EXIT
		err=$(unpressed "$3" tar -xpof - -C "$stage" 2>&1)
		putall
		printf '\036gpulease\nremoved %s\n\n' "$removed"
		;;
	take)
		printf '\036gpulease\n'
		entered=no
		trap '[ "$entered" = no ] || rm -rf "$stage"' EXIT
		while read -r how; do
			[ "$entered" = yes ] || enter "$2"
			entered=yes
			staged
			# What follows the archive's own end is a part of it, too.
			err=$(takechunks | { unpressed "$how" tar -xpof - -C "$stage"; cat >/dev/null; } 2>&1)
			putall
			exec 9>&-
			rm -rf "$stage"
			printf 'removed %s\n' "$removed"
		done
		echo
		;;
	parts)
		enter "$2"
		stage=./.gpulease-stage.large-$3
		mkdir -p -m 700 "$stage/done" 2>/dev/null && touch "$stage" && : >>"$stage/data" || fail storage "$2 cannot be written to"
		printf '\036gpulease\n'
		for f in "$stage/done"/*; do
			[ ! -f "$f" ] || printf 'done %s\n' "${f##*/}"
		done
		echo
		;;
	part)
		enter "$2"
		stage=./.gpulease-stage.large-$3
		[ -d "$stage/done" ] || fail storage "$stage went away"
		unpressed "$4" takeparts
		;;
	join)
		enter "$2"
		stage=./.gpulease-stage.large-$3 to=$4
		(umask 077 && mkdir -p "$sync") 2>/dev/null || fail storage "$sync cannot be made"
		hashes=$(sumcome || { givecome | sumstream; } 3>&1)
		case $hashes in
		*' '*) ;;
		*) exit 1 ;; # the caller is gone, and so may some parts be
		esac
		if [ "$(count "$stage/data")" != "$5" ] || [ "${hashes% *}" != "${hashes#* }" ]; then
			rm -rf "$stage"
			fail moving "$to"
		fi
		chmod "$6" "$stage/data" && touch -d "@$7" "$stage/data" || fail storage "$to cannot be finished"
		alone
		inside "$to" || fail conflict "a directory above $to is a symbolic link on the machine"
		mkdir -p "${to%/*}" 2>/dev/null || fail conflict "a directory above $to is a file on the machine"
		if [ -d "$to" ] && [ ! -L "$to" ]; then
			fail conflict "$to is a directory on the machine"
		fi
		err=$(mv -f "$stage/data" "$to" 2>&1) || fail storage "$err"
		rm -rf "$stage"
		printf '\036gpulease\n\n'
		;;
	remove)
		# Called by apply, in the pushed directory. Each argument is "HASH PATH", "l PATH" for a link, "d PATH" for an empty
		# directory, or "r PATH" for a directory that goes if nothing is left in it. What is no longer as it was put here
		# stays. A dot is printed for each that goes.
		shift
		for i; do
			k=${i%% *} f=${i#* }
			inside "$f" || continue
			if [ -L "$f" ]; then
				[ "$k" = l ] || continue
			elif [ -d "$f" ]; then
				case $k in
				d) rmdir "$f" 2>/dev/null && printf . ;;
				r) rmdir "$f" 2>/dev/null ;;
				esac
				continue
			else
				[ -f "$f" ] && [ "$(sumone <"$f")" = "$k" ] || continue
			fi
			rm -f "$f" && printf .
		done
		;;
	names)
		enter "$2"
		printf '\036gpulease\n\n'
		xargs -0 -r -n 3 sh "$0" below
		;;
	below)
		# Called by names: "=" if there is a file of the pattern's own name, and after "D" and the directory a letter and a
		# path for each thing below it. No link is followed, but for the directory itself.
		[ ! -e "$4" ] && [ ! -L "$4" ] || printf '=\0'
		printf 'D%s\0' "$2"
		cd "$2" 2>/dev/null || exit 0
		[ "$3" = 0 ] && depth= || depth="-maxdepth $3"
		for t in f d l; do
			find . $depth -name '.gpulease-stage.*' -prune -o -type $t -exec printf "$t%s\\0" {} + 2>/dev/null
		done
		exit 0
		;;
	list)
		enter "$2"
		work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT || fail storage 'no temporary directory'
		most=$3 hash=$4
		shift 4
		if [ "$#" -gt 0 ]; then printf '%s\0' "$@"; else cat; fi >"$work/asked" && true >"$work/found" && true >"$work/links" && true >"$work/odd" && true >"$work/closed" || full
		# A path that is asked for may be a link, and then what it leads to is meant; links further down are not followed.
		xargs -0 -r sh -c '
			out=$1
			shift
			for f; do
				if [ -d "$f" ]; then
					printf d
					find "$f/" -name ".gpulease-stage.*" -prune -o -type f -print0 2>/dev/null | cat >>"$out/found" || exit 255
					find "$f/" -name ".gpulease-stage.*" -prune -o -type l -print0 2>/dev/null | cat >>"$out/links" || exit 255
					find "$f/" ! -type f ! -type l ! -type d -print0 >>"$out/odd" 2>/dev/null
				elif [ -f "$f" ]; then
					printf f
					printf "%s\0" "$f" >>"$out/found" || exit 255
				elif [ -e "$f" ] || [ -L "$f" ]; then
					printf o
				else
					printf %s -
				fi
			done' sh "$work" <"$work/asked" >"$work/types" 2>/dev/null || full
		xargs -0 -r sh -c 'for f; do [ -r "$f" ] || printf "%s\0" "$f"; done' sh <"$work/found" >"$work/closed"
		if [ -s "$work/closed" ]; then
			xargs -0 -r sh -c 'for f; do [ ! -r "$f" ] || printf "%s\0" "$f" || exit 255; done' sh <"$work/found" >"$work/files" 2>/dev/null || full
		else
			mv "$work/found" "$work/files"
		fi
		xargs -0 -r sh -c 'for f; do printf "%s\0%s\0" "$f" "$(readlink "$f")"; done' sh <"$work/links" >"$work/targets"
		if stat -c %s . >/dev/null 2>&1; then
			xargs -0 -r stat -L -c '%s %Y %a'
		else
			xargs -0 -r stat -L -f '%z %m %Lp'
		fi <"$work/files" >"$work/sizes" 2>/dev/null
		total=$(awk '{ n += $1 } END { printf "%.0f", n }' "$work/sizes")
		: >"$work/sums"
		hashed=no
		if [ "$total" -le "$most" ] && [ "$total" -le "$hash" ]; then
			hashed=yes
			sum <"$work/files" >"$work/sums"
		fi
		room
		printf '\036gpulease\ntotal %s\nhashed %s\nranged %s\n' "$total" "$hashed" "$(ranged)"
		cd "$work" && lengths types files closed odd targets sizes sums
		echo
		cat types files closed odd targets sizes sums
		;;
	sums)
		enter "$2"
		printf '\036gpulease\n\n'
		if [ "$3" = bulk ]; then sum; else xargs -0 -r sh "$0" sumeach; fi
		;;
	sumeach)
		shift
		for f; do
			h=
			[ ! -f "$f" ] || [ ! -r "$f" ] || h=$(sumlarge "$f")
			echo "${h:--}"
		done
		;;
	send)
		enter "$2"
		work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT || fail storage 'no temporary directory'
		cat >"$work/asked" 2>/dev/null || full
		how=none
		[ "$3" = none ] || {
			xargs -0 -r cat -- <"$work/asked" 2>/dev/null | head -c 1048576 >"$work/first"
			squeeze "$work/sample" <"$work/first"
		}
		printf '\036gpulease\nhow %s\n\n' "$how"
		pressed "$how" givefiles "$work/asked"
		;;
	ranges)
		enter "$2"
		[ -f "$3" ] && [ -r "$3" ] || fail notfound "$3"
		how=none
		[ "$4" = none ] || {
			sample=$(mktemp) || fail storage 'no temporary file'
			squeeze "$sample" <"$3"
		}
		printf '\036gpulease\nhow %s\n\n' "$how"
		pressed "$how" giveranges "$3"
		;;
	*)
		fail usage 'unknown verb'
		;;
	esac
}

case ${1:-} in
held)
	shift
	held "$@"
	;;
*) run "$@" ;;
esac
