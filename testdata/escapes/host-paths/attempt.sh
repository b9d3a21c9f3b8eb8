#!/bin/sh
cat /proc/self/mountinfo /proc/self/mounts /proc/self/mountstats /proc/self/cgroup /proc/self/maps /proc/1/mountinfo /proc/1/cmdline /proc/1/cgroup \
	/proc/net/unix /proc/swaps /proc/partitions /proc/locks /sys/block/loop*/loop/backing_file 2>/dev/null
find /dev /run /mnt /sys/fs 2>/dev/null
echo "held: they are all printed, and the test looks for paths of the host's"
exit 3
