#!/bin/sh
# Each is opened to append to, and nothing is written.
there=
for f in /sys/kernel/mm/transparent_hugepage/enabled /sys/block/*/queue/read_ahead_kb /sys/module/*/parameters/* /sys/power/state /sys/class/block/*/uevent /sys/kernel/profiling; do
	[ -e "$f" ] && there=1
	(exec 3>>"$f") 2>/dev/null && [ -f "$f" ] && found="$found $f"
done
[ -z "$found" ] || { echo "escaped: could write$found"; exit 0; }
[ -n "$there" ] || { echo "absent: there is no such file"; exit 5; }
echo "held: none can be opened"
exit 3
