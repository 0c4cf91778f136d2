#!/bin/sh
# Installs Tailscale from its signed repository, joins the tailnet once, and wipes the key, whether it joined or not.
key=@KEY@

# Each copy that cloud-init has kept of user_data gets x where the key was. No process has the key in its arguments.
wipe() {
	python3 - "$key" <<'EOF' || true
import os, sys
with open(sys.argv[1], "rb") as f:
    secret = f.read().strip()
for top in ("/var/lib/cloud", "/run/cloud-init"):
    for where, _, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            try:
                if os.path.islink(path) or not secret:
                    continue
                with open(path, "r+b") as f:
                    text = f.read()
                    if secret in text:
                        f.seek(0)
                        f.write(text.replace(secret, b"x" * len(secret)))
                        f.flush()
                        os.fsync(f.fileno())
            except OSError as e:
                print("not wiped:", path, e.strerror)
EOF
	rm -rf /run/gpulease
}
trap wipe EXIT

patiently() {
	for again in 1 2 3 4 5 6 7 8 9 10; do
		"$@" && return 0
		sleep 6
	done
	return 1
}

install_tailscale() {
	. /etc/os-release
	from=https://pkgs.tailscale.com/stable/$ID
	ring=/usr/share/keyrings/tailscale-archive-keyring.gpg
	patiently curl -fsSL --proto =https --max-time 60 -o "$ring" "$from/$VERSION_CODENAME.noarmor.gpg" || return 1
	echo "deb [signed-by=$ring] $from $VERSION_CODENAME main" >/etc/apt/sources.list.d/tailscale.list
	chmod 644 "$ring" /etc/apt/sources.list.d/tailscale.list
	# Only this list: the others are the image's, and are left as they are.
	patiently apt-get update -q -o Dir::Etc::sourcelist=sources.list.d/tailscale.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 || return 1
	patiently env DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o DPkg::Lock::Timeout=120 tailscale
}

command -v tailscale >/dev/null || install_tailscale || { echo 'Tailscale could not be installed' >&2; exit 1; }
systemctl enable --now tailscaled || true
tailscale up --auth-key=file:"$key" --hostname=@NAME@ --advertise-tags=@TAGS@ --accept-dns=false --timeout=3m @SERVER@
