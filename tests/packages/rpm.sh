# An rpm root: busybox as its shell, and a systemctl that writes down what it is asked.

test_rpm() {
    printf '\n== rpm\n'
    local top=$work/rpm older=$work/older.rpm
    mkdir -p "$top/bin" "$top/usr/bin" "$top/tmp" "$top/dev"
    cp -a /dev/null "$top/dev/null"
    cp "$(static_busybox)" "$top/bin/busybox"
    for name in sh chmod mkdir rm rmdir; do ln -s busybox "$top/bin/$name"; done
    printf '#!/bin/sh\necho "$*" >>/asked\n' >"$top/usr/bin/systemctl"
    chmod 755 "$top/usr/bin/systemctl"
    rpm --root "$top" --initdb
    # Payload and file digests can be read by rpm of RHEL 7.
    not_ok "nothing asks for zstd" grep -q zstd <(rpm -qpR "$rpm")
    ok "digests are right" rpm -K --nosignature "$rpm"
    cargo generate-rpm --target x86_64-unknown-linux-gnu --payload-compress gzip -s 'version = "0.0.9"' -o "$older" >/dev/null

    ok "it is installed" rpm --root "$top" -i --nodeps "$older"
    ok "the preset decides whether it is enabled" grep -q -- '--no-reload preset execwatch.service' "$top/asked"
    not_ok "nothing is started" grep -qE '^(start|restart)' "$top/asked"
    ok "files are as packaged" rpm --root "$top" -V --nodeps execwatch
    ok "state is for root alone" equal 700 "$(stat -c %a "$top/var/lib/execwatch")"
    echo '# mine' >>"$top/etc/execwatch/execwatch.toml"
    : >"$top/asked"
    ok "it is upgraded" rpm --root "$top" -U --nodeps "$rpm"
    ok "a running daemon is restarted" grep -qx 'try-restart execwatch.service' "$top/asked"
    not_ok "and not stopped before" grep -qE 'stop|disable' "$top/asked"
    ok "what was changed in the configuration is kept" grep -q '^# mine' "$top/etc/execwatch/execwatch.toml"
    : >"$top/asked"
    ok "it is removed" rpm --root "$top" -e --nodeps execwatch
    ok "the daemon is stopped" grep -qx 'stop execwatch.service' "$top/asked"
    ok "and disabled" grep -qx -- '--no-reload disable execwatch.service' "$top/asked"
    ok "the changed configuration is kept aside" grep -q '^# mine' "$top/etc/execwatch/execwatch.toml.rpmsave"
    files "$top" | grep -E /execwatch >"$work/left" || true
    ok "nothing else of it is left" diff "$work/left" <(printf '%s\n' /etc/execwatch /etc/execwatch/execwatch.toml.rpmsave)
}
