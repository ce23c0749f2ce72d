# Roots of Debian releases, made once.

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
