#!/bin/sh
for fd in /proc/self/fd/* /proc/$$/fd/*; do
	cat "$fd/secret" "$fd/../../../../../../../..$CANARY_FILE" 2>/dev/null && found=1
done
[ -z "$found" ] || { echo "escaped: a descriptor leads to the host"; exit 0; }
echo "held: no descriptor leads anywhere"
exit 3
