#!/bin/sh
for p in /proc/[0-9]*; do
	tr '\0' '\n' <"$p/environ" | grep -v ^AGENT_SOCKET=
done 2>/dev/null
[ -r /proc/1/environ ] && head -c 1 /proc/1/environ >/dev/null 2>&1 && { echo "escaped: PID 1 shows its environment"; exit 0; }
echo "held: the environment of PID 1 can't be read"
exit 3
