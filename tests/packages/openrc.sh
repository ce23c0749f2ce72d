# A host with OpenRC: Debian's, in a root without a running init system. The daemon really runs.

test_openrc() {
    local release=$1 script=/etc/init.d/execwatch old
    printf '\n== OpenRC, with Debian %s\n' "$release"
    enter "$release" openrc
    printf '#!/bin/sh\nexit 101\n' >"$top/usr/sbin/policy-rc.d"
    chmod 755 "$top/usr/sbin/policy-rc.d"
    # Its scripts are no friends of those of systemd.
    ok "OpenRC is there" within_root apt-get install -q -y --no-install-recommends --allow-remove-essential \
        openrc sysvinit-core systemd-sysv-
    cp "$deb" "$top/tmp/execwatch.deb"
    ok "the package is installed" within_root dpkg -i /tmp/execwatch.deb
    install -m 755 packaging/openrc/execwatch "$top$script"
    # As if it had booted.
    mkdir -p "$top/run/openrc"
    touch "$top/run/openrc/softlevel"

    code "status before the start" 3 within_root rc-service execwatch status
    code "start" 0 within_root rc-service execwatch start
    code "status" 0 within_root rc-service execwatch status
    ok "an alert is in the log" alerted first
    old=$(supervised)
    code "reload" 0 within_root rc-service execwatch reload
    ok "it is told" within 20 told 'reloaded: '
    echo 'nonsense = 1' >>"$top/etc/execwatch/execwatch.toml"
    code "reload with a mistake" 0 within_root rc-service execwatch reload
    ok "the mistake is said" within 20 told nonsense
    code "restart with a mistake" 1 within_root rc-service execwatch restart
    ok "the daemon goes on" equal "$old" "$(supervised)"
    sed -i '/^nonsense/d' "$top/etc/execwatch/execwatch.toml"
    kill -KILL "$old"
    ok "killed, it is started again" within 30 another_than "$old"
    ok "an alert is in the log after that" alerted killed
    old=$(supervised)
    code "restart" 0 within_root rc-service execwatch restart
    ok "it is another process" within 30 another_than "$old"
    old=$(supervised)
    code "stop" 0 within_root rc-service execwatch stop
    ok "the daemon has ended" within 5 test ! -e "/proc/$old"
    code "status after the stop" 3 within_root rc-service execwatch status
    leave
}

# The daemon that supervise-daemon has started.
supervised() {
    cat "$top/run/execwatch/lock"
}

another_than() {
    local now
    now=$(supervised) && [ -n "$now" ] && [ "$now" != "$1" ] && [ -e "/proc/$now" ]
}

# told PATTERN: the daemon's own messages have it.
told() {
    grep -q -e "execwatch: .*$1" "$top/var/log/syslog"
}
