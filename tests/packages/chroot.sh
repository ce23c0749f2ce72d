# A host with a System V script: a root of Debian without a running systemd. The daemon really runs, on this machine's kernel,
# and sees all of its programs.

# enter RELEASE NAME: mounts a root over that of a release, in $top, on this machine's kernel.
enter() {
    local base name
    base=$(root "$1")
    top=$work/$2
    mkdir -p "$top" "$work/upper-$2" "$work/work-$2"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper-$2,workdir=$work/work-$2" "$top"
    mount --rbind /proc "$top/proc"
    mount -t tmpfs tmpfs "$top/run"
    mount -t tmpfs -o mode=755 tmpfs "$top/dev"
    for name in null zero random urandom tty; do cp -a "/dev/$name" "$top/dev/$name"; done
    # The kernel's messages are the machine's.
    sed -i '/imklog/d' "$top/etc/rsyslog.conf"
    within_root rsyslogd
    ok "rsyslog takes messages" within 10 test -S "$top/dev/log"
    # One at a time with the daemons of `cargo test`.
    exec 9>>"${TMPDIR:-/tmp}/execwatch-tests.lock"
    flock 9
}

# leave: ends what runs in the root, and unmounts it.
leave() {
    local process
    flock -u 9
    for process in /proc/[0-9]*; do
        if [ "$(readlink "$process/root")" = "$top" ]; then kill -KILL "${process#/proc/}" 2>/dev/null || true; fi
    done
    umount -R "$top"
}

test_chroot() {
    local release=$1
    printf '\n== chroot with Debian %s\n' "$release"
    enter "$release" "$release"
    # invoke-rc.d asks for the runlevel. From inside: the name may be a link, which outside leads to the machine's own files.
    within_root sh -c 'rm -f /sbin/runlevel && printf "#!/bin/sh\necho N 2\n" >/sbin/runlevel && chmod 755 /sbin/runlevel'
    cp "$deb" "$work/execwatch_0.0.9-1_amd64.deb" "$top/tmp/"
    new=/tmp/$(basename "$deb")
    files "$top" >"$work/before"

    ok "it is installed" within_root dpkg -i /tmp/execwatch_0.0.9-1_amd64.deb
    ok "the daemon runs" within_root /etc/init.d/execwatch status
    ok "an alert is in the log" alerted first
    ok "state is for root alone" equal 700 "$(stat -c %a "$top/var/lib/execwatch")"
    ok "it starts at boot" test -e "$top/etc/rc2.d/S01execwatch"

    echo '# mine' >>"$top/etc/execwatch/execwatch.toml"
    # A syslog server that is away during the upgrade.
    local old=$(cat "$top/run/rsyslogd.pid")
    kill "$old"
    ok "rsyslog has ended" within 10 test ! -e "/proc/$old"
    within_root nc.openbsd -h execwatch-unsent >/dev/null 2>&1 || true
    old=$(daemon)
    ok "it is upgraded" within_root dpkg --force-confold -i "$new"
    ok "the new one runs" within_root /etc/init.d/execwatch status
    ok "as another process" different "$old" "$(daemon)"
    ok "of the new file" test "$(readlink "/proc/$(daemon)/exe")" = "$top/usr/sbin/execwatch" -o \
        "$(readlink "/proc/$(daemon)/exe")" = /usr/sbin/execwatch
    ok "what was changed in the configuration is kept" grep -q '^# mine' "$top/etc/execwatch/execwatch.toml"
    within_root rsyslogd
    ok "an alert is in the log after the upgrade" alerted upgraded
    ok "an alert that could not be sent outlives the upgrade" within 60 logged unsent
    ok "postinst can be run again" within_root /var/lib/dpkg/info/execwatch.postinst configure 0.0.9-1
    ok "and once more" within_root /var/lib/dpkg/info/execwatch.postinst configure 0.0.9-1
    ok "the daemon runs after that" within_root /etc/init.d/execwatch status
    rm -f "$top/etc/execwatch/execwatch.toml.dpkg-dist"

    test_script

    old=$(daemon)
    ok "it is removed" within_root dpkg -r execwatch
    ok "the daemon has ended" within 5 test ! -e "/proc/${old:-none}"
    ok "its configuration is kept" grep -q '^# mine' "$top/etc/execwatch/execwatch.toml"
    code "the script that is left does nothing" 0 within_root /etc/init.d/execwatch stop
    ok "it is purged" within_root dpkg -P execwatch
    files "$top" >"$work/after"
    ok "nothing is left" diff "$work/before" "$work/after"
    ok "nothing is left in /var/log and /run" test -z "$(find "$top/var/log" "$top/run" -name '*execwatch*')"
    leave
}

# The codes are those of the LSB: 0 running, 1 dead with a PID file, 3 not running; 6 not configured, 7 not running.
test_script() {
    local script=/etc/init.d/execwatch old
    code "start of a running daemon" 0 within_root $script start
    code "reload" 0 within_root $script reload
    code "stop" 0 within_root $script stop
    code "status of a stopped daemon" 3 within_root $script status
    code "stop of a stopped daemon" 0 within_root $script stop
    code "reload of a stopped daemon" 7 within_root $script reload
    code "try-restart of a stopped daemon" 0 within_root $script try-restart
    code "status is still that" 3 within_root $script status
    code "start" 0 within_root $script start
    ok "an alert is in the log after the start" alerted started
    old=$(daemon)
    code "restart" 0 within_root $script restart
    ok "it is another process" different "$old" "$(daemon)"
    kill -KILL "$(daemon)"
    within 5 test ! -e "/proc/$(daemon)/exe" || true
    code "status of a killed daemon" 1 within_root $script status
    code "start after that" 0 within_root $script start
    echo 'nonsense = 1' >>"$top/etc/execwatch/execwatch.toml"
    old=$(daemon)
    code "restart with a mistake in the configuration" 6 within_root $script restart
    ok "the daemon goes on" equal "$old" "$(daemon)"
    code "and is said to" 0 within_root $script status
    code "stop with a mistake in the configuration" 0 within_root $script stop
    code "start with a mistake in the configuration" 6 within_root $script start
    sed -i '/^nonsense/d' "$top/etc/execwatch/execwatch.toml"
    # The number has come to another program.
    echo $$ >"$top/run/execwatch.pid"
    code "status where the number is another's" 1 within_root $script status
    code "stop kills nobody else" 0 within_root $script stop
    code "an unknown word" 2 within_root $script sing
    code "start at the end" 0 within_root $script start
}

within_root() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$top" "$@" </dev/null
}

daemon() {
    cat "$top/run/execwatch.pid"
}

# alerted WORD: a program with that argument is in the log, as an alert.
alerted() {
    within_root nc.openbsd -h "execwatch-$1" >/dev/null 2>&1 || true
    within 30 logged "$1"
}

logged() {
    grep -q "execwatch\[.*netcat-use.*execwatch-$1" "$top/var/log/auth.log"
}
