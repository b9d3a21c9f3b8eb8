#!/bin/sh
for fd in /proc/1/fd/* /proc/1/task/1/fd/* /proc/1/map_files/*; do
	cat "$fd/secret" "$fd/../../../../../../..$CANARY_FILE" 2>/dev/null && found=1
done
[ -z "$found" ] || { echo "escaped: read the secret"; exit 0; }
readlink /proc/1/fd/* && { echo "escaped: PID 1 tells what it has open"; exit 0; }
echo "held: the descriptors of PID 1 are out of reach"
exit 3
