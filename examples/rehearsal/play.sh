#!/bin/sh
# Plays a small intrusion on loopback, for execwatch to make an incident of: see docs/rehearsal.md. Nothing leaves this host
# and nothing stays but the folder of the play, which is named at the end.
#
# Needs busybox, curl and nc. Run it as root while `execwatch run` watches.
set -eu
scripts=$(cd "$(dirname "$0")/../../tests/incident" && pwd)
folder=$(mktemp -d /tmp/rehearsal.XXXXXX)
mkdir -p "$folder/site/cgi-bin" "$folder/outside/cgi-bin" "$folder/tmp"

# Whether somebody listens at a port: read, so that looking is no alert.
listens() { grep -q ":$(printf %04X "$1") 00000000:0000 0A" /proc/net/tcp; }
# A port that nobody has.
port() {
    port=$1
    while listens "$port"; do port=$((port + 1)); done
    echo "$port"
}
site=$(port 8080)
web=$(port 8180)
control=$(port 4444)
fill() { sed -e "s,{dir},$folder,g; s,{web},$web,g; s,{control},$control,g; s,/in\$,/cgi-bin/in," "$scripts/$1"; }

# The outside: what serves the next stage and takes what is carried off, and what waits for a call.
fill stage.sh >"$folder/outside/stage"
printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\ncat >/dev/null\nsleep 2\n' >"$folder/outside/cgi-bin/in"
# The inside: a web server below a supervisor, with a page that a stranger can make execute things.
fill intrusion.sh >"$folder/site/cgi-bin/status"
chmod 755 "$folder/outside/cgi-bin/in" "$folder/site/cgi-bin/status"
cp /bin/sh "$folder/supervise"
cp "$(command -v busybox)" "$folder/httpd"

busybox httpd -f -p "127.0.0.1:$web" -h "$folder/outside" &
outside=$!
# As netcat-traditional has it, or as netcat-openbsd.
(sleep 3; echo whoami) | { timeout 5 nc -l -p "$control" -s 127.0.0.1 || timeout 5 nc -l 127.0.0.1 "$control"; } >/dev/null 2>&1 &
"$folder/supervise" -c "trap 'kill \$!' TERM; $folder/httpd -f -p 127.0.0.1:$site -h $folder/site & wait \$!; exit 0" </dev/null >/dev/null 2>&1 &
inside=$!
trap 'kill $inside $outside 2>/dev/null' EXIT
trap 'exit 1' TERM INT
until listens "$site" && listens "$web" && listens "$control"; do sleep 0.1; done

curl -s "http://127.0.0.1:$site/cgi-bin/status"
# What is looked at afterwards is looked at while the way in is there.
sleep "${1:-8}"
echo "played in $folder"
