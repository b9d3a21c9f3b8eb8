#!/bin/sh
# Each is opened to append to, and nothing is written.
there=
for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/tasks /sys/fs/cgroup/*/nestbox/*/cgroup.procs /sys/fs/cgroup/nestbox/*/memory.max; do
	[ -e "$f" ] && there=1
	(exec 3>>"$f") 2>/dev/null && [ -f "$f" ] && found="$found $f"
done
[ -z "$found" ] || { echo "escaped: could write$found"; exit 0; }
[ -n "$there" ] || { echo "absent: there is no such file"; exit 5; }
echo "held: none can be opened"
exit 3
