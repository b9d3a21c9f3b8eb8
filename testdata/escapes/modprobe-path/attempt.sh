#!/bin/sh
# Each is opened to append to, and nothing is written.
there=
for f in /proc/sys/kernel/modprobe /proc/sys/kernel/poweroff_cmd /proc/sys/kernel/hotplug /sys/kernel/uevent_helper /proc/sys/kernel/usermodehelper/bset; do
	[ -e "$f" ] && there=1
	(exec 3>>"$f") 2>/dev/null && [ -f "$f" ] && found="$found $f"
done
[ -z "$found" ] || { echo "escaped: could write$found"; exit 0; }
[ -n "$there" ] || { echo "absent: there is no such file"; exit 5; }
echo "held: none can be opened"
exit 3
