#!/bin/busybox sh
# The first process of a virtual machine. Lines to the host begin with "vm:".

# A mount namespace whose root is the kernel's own initramfs knows no pivot_root, so the root is moved to a tmpfs first.
if [ ! -e /moved ]; then
    /bin/busybox --install -s /bin
    export PATH=/bin
    mkdir /root
    mount -t tmpfs -o mode=755 root /root
    for entry in /*; do
        [ "$entry" = /root ] || [ "$entry" = /dev ] || cp -a "$entry" /root/
    done
    mkdir -p /root/dev /root/proc /root/sys /root/tmp /root/mnt
    touch /root/moved
    exec switch_root /root /init
fi

export PATH=/bin HOME=/ RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
for module in /modules/*; do
    case "$module" in
        */\*) continue ;;
        *.xz) xzcat "$module" > /tmp/module.ko && insmod /tmp/module.ko && rm /tmp/module.ko ;;
        *) insmod "$module" ;;
    esac
done
# Else the kernel's own lines would stand amid ours; what it says when it dies is said all the same.
dmesg -n 1

echo "vm: kernel $(uname -r)"
. /job
echo "vm: end"
sync
poweroff -f
