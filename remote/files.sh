# Files to and from the leased machine. POSIX sh: dash, bash and busybox all run it. A reply starts with the line
# "\036gpulease", then "key value" lines, an empty line, and raw bytes. Lists of paths are separated by NUL; every
# path starts with "./" or "/", so that no tool takes it for an option.
#
#   files.sh probe DIR MAKE       paths on stdin: what is there, the hashes of the files, the last push's manifest
#   files.sh apply DIR            tar.gz on stdin: puts each file in place by rename, then deletes
#   files.sh list BASE MAX        paths on stdin: the files at and below them, their sizes and hashes
#   files.sh send BASE            paths of files on stdin: a tar of them, compressed where there is gzip
#
# A push's manifest is ~/.gpulease/sync/KEY, KEY being the hash of the directory's real path. Only this package reads
# what is in it. A push unpacks into DIR/.gpulease-stage.PID, on the same disk, so that a rename can put it in place.
set -u
home=${HOME:-$(cd && pwd)}
sync=$home/.gpulease/sync
trap 'exit 1' HUP INT PIPE TERM # so that the trap for EXIT cleans up when the caller is gone

fail() { # code text
	printf '\036gpulease\nerror %s %s\n\n' "$1" "$(printf %s "$2" | tr '\n' ' ')"
	exit 0
}

sum() { # hashes of the files named on stdin, one on a line, in their order
	if command -v sha256sum >/dev/null 2>&1; then
		xargs -0 -r sha256sum --
	else
		xargs -0 -r shasum -a 256 --
	fi 2>/dev/null | sed -n 's/^\\\{0,1\}\([0-9a-f]\{64\}\) [ *].*/\1/p'
}

sumone() {
	if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | cut -c 1-64
}

enter() { # goes to the directory; key: the name of its manifest
	cd "$home" 2>/dev/null
	cd "$1" 2>/dev/null || fail directory "$1"
	key=$(pwd -P | sumone)
}

count() { # bytes of a file
	wc -c <"$1" | tr -d ' '
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
			err=$(mv "$e" "$to" 2>&1) || fail storage "$err"
		fi
	done
	err=$(find "$stage/t/$1" -maxdepth 1 ! -type d -exec sh -c 'd=$1 && shift && exec mv -f "$@" "$d"' sh "./$1/" {} + 2>&1) ||
		fail storage "$err"
	[ -z "$err" ] || fail storage "$err"
}

case ${1:-} in
probe)
	cd "$home" 2>/dev/null
	[ "$3" = no ] || mkdir -p "$2" 2>/dev/null
	[ -d "$2" ] || [ "$3" = no ] || fail storage "$2 cannot be made"
	list=$(mktemp) && trap 'rm -f "$list" "$list.out"' EXIT || fail storage 'no temporary file'
	cat >"$list" && : >"$list.out" || fail storage 'no temporary file'
	manifest=/dev/null
	if [ -d "$2" ]; then
		enter "$2"
		[ ! -f "$sync/$key" ] || manifest=$sync/$key
		# One letter a path: file, executable, unreadable file, directory, link, other, none.
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
			done' sh <"$list" >"$list.out"
	fi
	printf '\036gpulease\ntypes %s\nmanifest %s\n\n' "$(count "$list.out")" "$(count "$manifest")"
	if [ -s "$list.out" ]; then
		cat "$list.out" "$manifest"
		xargs -0 -r sh -c '
			for f; do
				[ ! -L "$f" ] && [ -f "$f" ] && [ -r "$f" ] && printf "%s\0" "$f"
			done' sh <"$list" | sum
	fi
	;;
apply)
	enter "$2"
	find . -maxdepth 1 -name '.gpulease-stage.*' -mmin +120 -exec rm -rf {} + 2>/dev/null
	stage=./.gpulease-stage.$$
	rm -rf "$stage"
	mkdir -m 700 "$stage" 2>/dev/null || fail storage "$2 cannot be written to"
	trap 'rm -rf "$stage"' EXIT
	err=$(tar -xzpof - -C "$stage" 2>&1) && [ -f "$stage/end" ] || fail storage "not received whole: $err"
	(umask 077 && mkdir -p "$sync") 2>/dev/null || fail storage "$sync cannot be made"
	# Until all is done the manifest names the old and the new: whatever an end in the middle leaves is known as ours.
	mv -f "$stage/both" "$sync/$key" || fail storage "$sync cannot be written to"
	: >"$stage/removed"
	[ ! -s "$stage/before" ] || xargs -0 sh "$0" remove <"$stage/before" >>"$stage/removed"
	[ ! -d "$stage/t" ] || place .
	[ ! -s "$stage/after" ] || xargs -0 sh "$0" remove <"$stage/after" >>"$stage/removed"
	mv -f "$stage/new" "$sync/$key" || fail storage "$sync cannot be written to"
	printf '\036gpulease\nremoved %s\n\n' "$(count "$stage/removed")"
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
list)
	enter "$2"
	work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT || fail storage 'no temporary directory'
	cat >"$work/asked"
	: >"$work/found"
	# A path that is asked for may be a link, and then what it leads to is meant; links further down are not followed.
	xargs -0 -r sh -c '
		out=$1
		shift
		for f; do
			if [ -d "$f" ]; then
				printf d
				find "$f/" -name ".gpulease-stage.*" -prune -o -type f -print0 >>"$out/found" 2>/dev/null
				find "$f/" -name ".gpulease-stage.*" -prune -o -type l -print0 >>"$out/links" 2>/dev/null
				find "$f/" ! -type f ! -type l ! -type d -print0 >>"$out/odd" 2>/dev/null
			elif [ -f "$f" ]; then
				printf f
				printf "%s\0" "$f" >>"$out/found"
			elif [ -e "$f" ] || [ -L "$f" ]; then
				printf o
			else
				printf %s -
			fi
		done' sh "$work" <"$work/asked" >"$work/types"
	: >>"$work/links" && : >>"$work/odd" && : >"$work/files" && : >"$work/closed"
	xargs -0 -r sh -c '
		out=$1
		shift
		for f; do
			if [ -r "$f" ]; then printf "%s\0" "$f"; else printf "%s\0" "$f" >>"$out/closed"; fi
		done' sh "$work" <"$work/found" >"$work/files"
	xargs -0 -r sh -c 'for f; do printf "%s\0%s\0" "$f" "$(readlink "$f")"; done' sh <"$work/links" >"$work/targets"
	if stat -c %s . >/dev/null 2>&1; then
		xargs -0 -r stat -L -c %s
	else
		xargs -0 -r stat -L -f %z
	fi <"$work/files" >"$work/sizes" 2>/dev/null
	total=$(awk '{ n += $1 } END { printf "%.0f", n }' "$work/sizes")
	: >"$work/sums"
	[ "$total" -gt "$3" ] || sum <"$work/files" >"$work/sums"
	printf '\036gpulease\ntotal %s\n' "$total"
	for part in types files closed odd targets sizes sums; do
		printf 'part %s\n' "$(count "$work/$part")"
	done
	echo
	cd "$work" && cat types files closed odd targets sizes sums
	;;
send)
	enter "$2"
	printf '\036gpulease\n\n'
	# xargs may make several archives of a long list, one behind the other.
	if command -v gzip >/dev/null 2>&1; then
		xargs -0 -r tar -chf - -- 2>/dev/null | gzip -1
	else
		xargs -0 -r tar -chf - -- 2>/dev/null
	fi
	;;
*)
	fail usage 'unknown verb'
	;;
esac
