#!/bin/sh
# Each is opened to append to, and nothing is written.
there=
for f in /proc/sys/vm/overcommit_memory /proc/sys/vm/drop_caches /proc/sys/kernel/pid_max /proc/sys/kernel/yama/ptrace_scope /proc/sys/kernel/randomize_va_space /proc/sys/fs/file-max /proc/sys/user/max_user_namespaces; do
	[ -e "$f" ] && there=1
	(exec 3>>"$f") 2>/dev/null && [ -f "$f" ] && found="$found $f"
done
[ -z "$found" ] || { echo "escaped: could write$found"; exit 0; }
[ -n "$there" ] || { echo "absent: there is no such file"; exit 5; }
echo "held: none can be opened"
exit 3
