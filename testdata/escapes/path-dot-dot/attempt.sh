#!/bin/sh
up=
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
	up="$up/.."
done
echo "planted: $PWD$up$CANARY_FILE"
cat >/dev/null
exit 4
