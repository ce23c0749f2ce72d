# At an upgrade the old daemon has gone on until here, and the new one begins at once.
if command -v systemctl >/dev/null 2>&1; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart execwatch.service >/dev/null 2>&1 || :
    fi
fi
# State, logs and changed files of /etc/execwatch (*.rpmsave) stay, as is the custom with rpm, which knows no purge.
if [ "$1" -eq 0 ]; then
    rm -rf /run/execwatch
    # Folders are not in the package; those with something in them stay.
    for folder in /usr/share/execwatch/* /usr/share/execwatch /usr/share/doc/execwatch/docs /usr/share/doc/execwatch \
        /etc/execwatch/rules.d /etc/execwatch/utilities.d /etc/execwatch/exceptions.d /etc/execwatch \
        /var/lib/execwatch /var/log/execwatch; do
        rmdir "$folder" 2>/dev/null || :
    done
fi
exit 0
