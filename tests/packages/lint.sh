# What can be said of packages and their files without running them.

test_lint() {
    printf '\n== lint\n'
    local unpacked=$work/unpacked unit page
    dpkg-deb -x "$deb" "$unpacked"
    ok "lintian has no error and no warning" lintian --allow-root --fail-on error,warning "$deb"
    ok "rpmlint has no complaint that packaging/rpm/rpmlint.toml does not explain" \
        rpmlint -c packaging/rpm/rpmlint.toml "$rpm"
    # cargo-generate-rpm and cargo-deb have their lists of files apart.
    ok ".deb and .rpm hold the same files" same_files "$unpacked"
    ok "the binary is below 8 MB" test "$(stat -c %s "$unpacked/usr/sbin/execwatch")" -lt 8000000
    ok "the packages are below 3 MiB" test "$(stat -c %s "$deb")" -lt $((3 << 20)) -a "$(stat -c %s "$rpm")" -lt $((3 << 20))
    ok "the binary asks for glibc 2.17 at most" old_enough "$unpacked/usr/sbin/execwatch"
    for page in "$unpacked"/usr/share/man/man*/*.gz; do
        zcat "$page" >"$work/page"
        ok "mandoc has no warning for $(basename "$page")" mandoc -Tlint -Wwarning "$work/page"
    done

    # The unit names programs by path, so it is looked at with the paths of the unpacked package.
    unit=$work/execwatch.service
    sed "s|^ExecStart=/usr|ExecStart=$unpacked/usr|" "$unpacked/usr/lib/systemd/system/execwatch.service" >"$unit"
    ok "systemd-analyze verify finds nothing" silent systemd-analyze verify --man=no "$unit"
    ok "systemd-analyze security is 3.2 or better" systemd-analyze security --offline=yes --threshold=32 --no-pager "$unit"
    systemd-analyze security --offline=yes --no-pager "$unit" 2>/dev/null | sed -n 's/.*Overall exposure level/        exposure level/p'

    for script in packaging/deb/p* packaging/rpm/*.sh packaging/sysvinit/execwatch packaging/openrc/execwatch; do
        ok "dash reads $script" dash -n "$script"
    done
    ok "the completions of bash are taken" \
        bash -c '. "$1" && complete -p execwatch' - "$unpacked/usr/share/bash-completion/completions/execwatch"
    ok "after a rotation every syslog server is told" rotation_told
    ok "logrotate reads its file" logrotate --debug --state "$work/rotated" packaging/logrotate/execwatch
}

# The script after a rotation, under systemd, with a systemctl that writes down what it is asked.
rotation_told() {
    local service
    mkdir -p "$work/rotation"
    printf '#!/bin/sh\necho "$@" >>"%s"\n' "$work/rotation/told" >"$work/rotation/systemctl"
    chmod 755 "$work/rotation/systemctl"
    sed -n '/postrotate/,/endscript/{/script$/d;/postrotate/d;p}' packaging/logrotate/execwatch |
        sed "s|-d /run/systemd/system|-d /|" | PATH=$work/rotation:$PATH dash
    for service in execwatch rsyslog syslog-ng; do
        grep -qx -- "kill --signal=HUP $service.service" "$work/rotation/told" || return 1
    done
}

# Says nothing and succeeds.
silent() {
    local output
    output=$("$@" 2>&1) && [ -z "$output" ] || { echo "$output"; return 1; }
}

old_enough() {
    local newest
    newest=$(objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    equal GLIBC_2.17 "$(printf '%s\nGLIBC_2.17\n' "$newest" | sort -V | tail -n 1)"
}

# Apart from what each kind of package has in its own places.
same_files() {
    local ours='s|/zsh/vendor-completions/|/zsh/site-functions/|; s|\.gz$||'
    (cd "$1" && find . -type f -printf '/%P\n') | sed "$ours" |
        grep -vE '^/etc/init.d/|/lintian/|/doc/execwatch/(copyright|changelog)' | sort >"$work/of-deb"
    rpm -qpl "$rpm" 2>/dev/null | sed "$ours" | grep -vE '/doc/execwatch/(LICENSE|CHANGELOG)' | sort >"$work/of-rpm"
    diff "$work/of-deb" "$work/of-rpm"
}
