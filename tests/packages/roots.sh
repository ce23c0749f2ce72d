# Roots of Debian releases, made once.

# Debian's name of the architecture of kernels and of what is unpacked.
architecture=${architecture:-amd64}

# root RELEASE: prints the folder of a root with an init system, syslog and what provokes alerts.
root() {
    local root=$roots/$1
    if [ ! -e "$root.ready" ]; then
        echo "making a root of Debian $1 in $root" >&2
        mkdir -p "$roots"
        rm -rf "$root"
        debootstrap --variant=minbase "$1" "$root" >"$root.log" 2>&1 || { tail "$root.log" >&2; return 1; }
        # Services are started by the tests.
        printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
        chmod 755 "$root/usr/sbin/policy-rc.d"
        unshare -m sh -c "mount -t proc proc '$root/proc' && mount -t tmpfs tmpfs '$root/run' &&
            DEBIAN_FRONTEND=noninteractive exec chroot '$root' apt-get -o Acquire::Check-Valid-Until=false install -q -y --no-install-recommends systemd systemd-sysv \
            init-system-helpers dbus procps netcat-openbsd rsyslog logrotate initramfs-tools linux-image-cloud-amd64 kmod" \
            >>"$root.log" 2>&1 </dev/null || { tail "$root.log" >&2; return 1; }
        rm "$root/usr/sbin/policy-rc.d"
        touch "$root.ready"
    fi
    echo "$root"
}

# release_apt RELEASE TOOL...: asks apt about another release than this machine's, with lists of their own.
release_apt() {
    local folder=$roots/apt-$1-$architecture tool=$2 mirror
    if [ ! -e "$folder.ready" ]; then
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
        mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
        echo "deb [arch=$architecture signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$folder/list"
        touch "$folder.ready"
        release_apt "$1" apt-get update >&2 || { rm "$folder.ready"; return 1; }
    fi
    shift 2
    "$tool" -q -o Dir::Etc::SourceList="$folder/list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$folder/state" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$folder/cache" -o Acquire::Languages=none \
        -o APT::Architecture="$architecture" -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root "$@"
}

# unpacked RELEASE PACKAGE PATTERN: prints a folder with the files of a package that match.
unpacked() {
    local folder=$roots/$2-$1-$architecture
    if [ ! -e "$folder.ready" ]; then
        echo "fetching $2 of Debian $1" >&2
        rm -rf "$folder"
        mkdir -p "$folder"
        (cd "$folder" && release_apt "$1" apt-get download "$2" >&2 &&
            dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards "$3" && rm ./*.deb) || return 1
        touch "$folder.ready"
    fi
    echo "$folder"
}

# kernel RELEASE: prints the file of a release's kernel, the one for virtual machines.
kernel() {
    local package binary folder
    package=$(depends "$1" "linux-image-cloud-$architecture" 'linux-image-')
    # Later releases have it in a package of its own.
    binary=$(depends "$1" "${package:?no kernel of $1 was found}" 'linux-binary-')
    folder=$(unpacked "$1" "${binary:-$package}" '*/vmlinuz*') || return 1
    find "$folder" -name 'vmlinuz*' -type f | head -n 1
}

# depends RELEASE PACKAGE BEGINNING: the first package that a package needs whose name begins like this, if there is one.
depends() {
    release_apt "$1" apt-cache depends "$2" | sed -n "s/^ *Depends: \($3.*\)/\1/p" | head -n 1
}

# static_busybox: prints the file of a busybox that needs no library.
static_busybox() {
    local folder
    folder=$(unpacked sid busybox-static ./usr/bin/busybox) && echo "$folder/usr/bin/busybox"
}
