# Runs inside the virtual machine, on a fresh host with systemd.
set -u
cd /root/test
. ./common.sh
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

daemon() { systemctl show -p MainPID --value execwatch; }
log() { journalctl -t execwatch -o cat --no-pager; }
logged() { log | grep -q -- "$1"; }

# alerted WORD: a program with that argument is in the journal, as an alert.
alerted() {
    nc.openbsd -h "$1" >/dev/null 2>&1
    within 30 logged "cmdline=\"nc.openbsd -h $1\""
}

is_another() { local now; now=$(daemon); [ "$now" != 0 ] && [ "$now" != "$1" ] && systemctl -q is-active execwatch; }

printf '%s, systemd %s, Linux %s\n' "$(cat /etc/debian_version)" "$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" "$(uname -r)"
files / >/run/before

ok "it is installed" dpkg -i old.deb
ok "the service runs" systemctl is-active execwatch
ok "it starts at boot" systemctl is-enabled execwatch
ok "an alert is in the journal" alerted first
printf '        %s\n' "$(log | grep -o 'listening: .*' | tail -n 1)" "$(systemctl show -p StatusText execwatch)"
ok "the listeners are exact" logged 'listening: .*exact'
ok "status answers" execwatch status
ok "systemd-analyze verify finds nothing" systemd-analyze verify --man=no execwatch.service
systemctl show -p MemoryCurrent -p TasksCurrent execwatch | sed 's/^/        /'
ok "it has no more capabilities than its unit says" equal 0 "$(( 0x$(sed -n 's/^CapPrm:\s*//p' "/proc/$(daemon)/status") & ~0x885024 ))"
ok "it cannot gain any" grep -q '^NoNewPrivs:\s*1' "/proc/$(daemon)/status"

# The sandbox must not change what is seen.
cp /usr/bin/nc.openbsd /tmp/renamed
mkdir -p /home/somebody && cp /usr/bin/nc.openbsd /home/somebody/renamed
/tmp/renamed -h from-tmp >/dev/null 2>&1
/home/somebody/renamed -h from-home >/dev/null 2>&1
ok "a renamed copy in /tmp is known" within 30 logged 'utility=nc.*from-tmp'
ok "a renamed copy in /home is known" within 30 logged 'utility=nc.*from-home'
not_ok "programs of the host are in its namespaces" logged 'namespaces='
unshare -m nc.openbsd -h elsewhere >/dev/null 2>&1
ok "programs in others are not" within 30 logged 'elsewhere.*namespaces=mnt'

for word in anton berta caesar dora emil friedrich gustav heinrich; do nc.openbsd -h "$word" >/dev/null 2>&1; done
old=$(daemon)
echo '# mine' >>/etc/execwatch/execwatch.toml
ok "it is upgraded" dpkg --force-confold -i new.deb
ok "another process runs" is_another "$old"
ok "what was changed in the configuration is kept" grep -q '^# mine' /etc/execwatch/execwatch.toml
for word in anton berta caesar dora emil friedrich gustav heinrich; do
    ok "the alert of before the upgrade is there: $word" within 10 logged "cmdline=\"nc.openbsd -h $word\""
done
ok "an alert is in the journal after the upgrade" alerted upgraded

old=$(daemon)
ok "it reloads" systemctl reload execwatch
ok "it is the same process" equal "$old" "$(daemon)"
echo 'nonsense = 1' >>/etc/execwatch/execwatch.toml
systemctl reload execwatch
ok "a mistake is said at a reload" within 20 logged nonsense
ok "and the daemon goes on" equal "$old" "$(daemon)"
ok "it still alerts" alerted after-a-mistake
not_ok "it does not start with a mistake" systemctl restart execwatch
ok "and is not tried again" equal "failed 78" "$(systemctl show -p ActiveState --value execwatch) $(systemctl show -p ExecMainStatus --value execwatch)"
sed -i '/^nonsense/d' /etc/execwatch/execwatch.toml
ok "it starts again" systemctl start execwatch

old=$(daemon)
kill -KILL "$old"
ok "killed, it is started again" within 60 is_another "$old"
mkdir -p /run/systemd/system/execwatch.service.d
printf '[Service]\nWatchdogSec=5\n' >/run/systemd/system/execwatch.service.d/test.conf
systemctl daemon-reload
systemctl restart execwatch
old=$(daemon)
kill -STOP "$old"
ok "if it hangs it is started again" within 90 is_another "$old"
ok "it alerts after that" alerted after-the-hang
rm -r /run/systemd/system/execwatch.service.d
systemctl daemon-reload

old=$(daemon)
ok "it is removed" dpkg -r execwatch
ok "the daemon has ended" within 10 test ! -e "/proc/$old"
ok "its configuration is kept" grep -q '^# mine' /etc/execwatch/execwatch.toml
ok "it is purged" dpkg -P execwatch
rm -rf /home/somebody
files / >/run/after
ok "nothing is left" diff /run/before /run/after
ok "nothing is left in /var/log and /run" test -z "$(find /var/log /run /var/lib/systemd -name '*execwatch*' | grep -v '^/run/systemd/\(units\|propagate\)')"
not_ok "systemd knows no such unit" systemctl cat execwatch.service
echo "end of the test"
