# Virtual machines without KVM, for the tests of packages and of kernels.

# What emulates Debian's architecture $architecture, and its first two serial ports.
case $architecture in
    amd64) emulator=(qemu-system-x86_64) ports="ttyS0 ttyS1" ;;
    arm64) emulator=(qemu-system-aarch64 -machine virt) ports="ttyAMA0 ttyS0" ;;
esac

# emulate SECONDS CONSOLE REPORT ARGUMENT...: runs QEMU with these arguments, no longer than that, and with files that take
# what the first and the second serial port are given.
emulate() {
    local seconds=$1 serial=(-serial "file:$2" -serial "file:$3")
    # This machine has one of its own; the other must be plugged in.
    [ "$architecture" = amd64 ] || serial=(-serial "file:$2" -chardev "file,id=report,path=$3" -device pci-serial,chardev=report)
    shift 3
    timeout -k 5 "$seconds" "${emulator[@]}" -accel tcg,thread=multi -cpu max -display none -monitor none -no-reboot \
        -net none "${serial[@]}" "$@" </dev/null
}
