# A fresh host with systemd: a release of Debian with its own kernel, booted in QEMU. What is tried there stands in inside.sh.

test_vm() {
    printf '\n== Debian %s in a virtual machine\n' "$1"
    local base image=$work/$1.img report=$work/$1.report top=$work/vm-$1 line kernel initrd code=0
    base=$(root "$1")
    mkdir -p "$top" "$work/vm-upper-$1" "$work/vm-work-$1"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/vm-upper-$1,workdir=$work/vm-work-$1" "$top"
    mkdir -p "$top/root/test"
    cp "$here/common.sh" "$here/inside.sh" "$top/root/test/"
    cp "$work/execwatch_0.0.9-1_amd64.deb" "$top/root/test/old.deb"
    cp "$deb" "$top/root/test/new.deb"
    cat >"$top/etc/systemd/system/packages-test.service" <<'UNIT'
[Unit]
Description=Test of the packages
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /root/test/inside.sh
ExecStopPost=/bin/systemctl poweroff --force
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS1
TimeoutStartSec=1200
[Install]
WantedBy=default.target
UNIT
    chroot "$top" systemctl enable packages-test.service 2>/dev/null
    printf '/dev/vda / ext4 defaults 0 1\n' >"$top/etc/fstab"
    kernel=$(ls "$top"/boot/vmlinuz-* | tail -n 1)
    initrd=$(ls "$top"/boot/initrd.img-* | tail -n 1)
    cp "$kernel" "$work/vmlinuz"
    cp "$initrd" "$work/initrd"
    mke2fs -q -t ext4 -d "$top" "$image" 2G
    umount "$top"
    emulate 1500 "$work/$1.console" "$report" -m 1024 -smp 2 -kernel "$work/vmlinuz" -initrd "$work/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet panic=1 rootdelay=120" \
        -drive "file=$image,if=virtio,format=raw,snapshot=on" || code=$?
    rm -f "$image"
    tr -d '\r' <"$report" | while IFS= read -r line; do printf '%s\n' "$line"; done
    passed=$((passed + $(grep -c '^ok ' "$report" || true)))
    failed=$((failed + $(grep -c '^FAILED ' "$report" || true)))
    ok "the machine came to its end" grep -q '^end of the test' "$report"
    [ "$code" = 0 ] && grep -q '^end of the test' "$report" || tail -n 20 "$work/$1.console"
}
