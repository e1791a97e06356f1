#!/bin/busybox sh
# The first process of a guest: runs what its list of commands says and switches it off.
# `tier` and `list` come from the kernel's command line.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
while read -r module; do
    insmod "/guest/modules/$module" || echo "guest: cannot load $module"
done < /guest/modules/order
ip link set lo up
mount -t debugfs debugfs /sys/kernel/debug
# A guest is slow: what is printed while a test runs would be, too.
echo 1 > /proc/sys/kernel/printk
ulimit -n 65536
export CONNTRACE_BIN=/guest/conntrace CONNTRACE_OWN_MACHINE=1 CONNTRACE_STORM=2000 CONNTRACE_TIER=$tier
[ -f "/guest/commands/$list" ] || list=none
cd /guest/programs
while read -r limit name command; do
    began=$(cut -d . -f 1 /proc/uptime)
    echo "guest: begin $name"
    timeout -s KILL "$limit" sh -c "$command" </dev/null 2>&1
    echo "guest: end $name $? $(($(cut -d . -f 1 /proc/uptime) - began))"
done < "/guest/commands/$list"
echo "guest: off"
poweroff -f
