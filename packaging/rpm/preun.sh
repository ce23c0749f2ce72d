# $1 is 0 when the last version goes.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
    systemctl --no-reload disable execwatch.service >/dev/null 2>&1 || :
    systemctl stop execwatch.service >/dev/null 2>&1 || :
fi
exit 0
