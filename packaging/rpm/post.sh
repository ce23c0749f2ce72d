# $1 is 1 at the first installation. Whether it is enabled then is the distribution's preset; most do not enable what was
# added, so: systemctl enable --now execwatch
# The tool that makes the package cannot put folders into it.
mkdir -p -m 0700 /var/lib/execwatch
mkdir -p -m 0750 /var/log/execwatch
if command -v systemctl >/dev/null 2>&1; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -eq 1 ]; then
        systemctl --no-reload preset execwatch.service >/dev/null 2>&1 || :
    fi
fi
exit 0
