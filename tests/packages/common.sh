# What the tests of the packages share. Sourced by tests/packages/run.

passed=0
failed=0

# ok WHAT COMMAND...: the command must succeed.
ok() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        printf 'ok      %s\n' "$what"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n        %s\n' "$what" "$*"
        printf '%s\n' "$output" | sed 's/^/        | /' | tail -n 20
    fi
}

# not_ok WHAT COMMAND...: the command must fail.
not_ok() {
    local what=$1
    shift
    ok "$what" refuse "$@"
}

refuse() {
    ! "$@"
}

# code WHAT NUMBER COMMAND...: the command must end with this code.
code() {
    local what=$1 expected=$2
    shift 2
    ok "$what" ends_with "$expected" "$@"
}

ends_with() {
    local expected=$1 got=0
    shift
    "$@" || got=$?
    [ "$got" = "$expected" ] || { echo "ended with $got, not with $expected"; return 1; }
}

equal() {
    [ "$1" = "$2" ] || { printf 'not equal: «%s» and «%s»\n' "$1" "$2"; return 1; }
}

different() {
    [ "$1" != "$2" ] || { printf 'both are «%s»\n' "$1"; return 1; }
}

# within SECONDS COMMAND...: until the command succeeds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "did not succeed in time: $*"
            "$@" || true
            return 1
        fi
        sleep 0.1
    done
}

# Every file below a root, without what a package manager and the test itself write.
files() {
    local top=${1%/}
    find "$1" -xdev \( -path "$top/proc" -o -path "$top/sys" -o -path "$top/dev" -o -path "$top/tmp" -o -path "$top/var/log" \
        -o -path "$top/var/lib/dpkg" -o -path "$top/var/lib/rpm" -o -path "$top/var/cache" -o -path "$top/var/lib/systemd" \
        -o -path "$top/usr/lib/sysimage" -o -path "$top/run" -o -path "$top/var/tmp/systemd-private-*" \) -prune -o -printf '/%P\n' | sort
}
