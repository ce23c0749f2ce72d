# Virtual machines without KVM, for the tests of packages and of kernels.

# emulate SECONDS ARGUMENT...: runs QEMU with these arguments, no longer than that.
emulate() {
    local seconds=$1
    shift
    timeout -k 5 "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -display none -monitor none -no-reboot \
        -net none "$@" </dev/null
}
