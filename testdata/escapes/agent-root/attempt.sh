#!/bin/sh
for p in /proc/[0-9]*; do
	cat "$p/root$CANARY_FILE" "$p/cwd/$CANARY_FILE" "$p/task/${p#/proc/}/root$CANARY_FILE" 2>/dev/null && found=1
done
[ -z "$found" ] || { echo "escaped: read $CANARY_FILE"; exit 0; }
echo "held: no process has a root with $CANARY_FILE"
exit 3
