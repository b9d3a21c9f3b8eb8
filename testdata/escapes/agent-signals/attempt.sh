#!/bin/sh
for s in KILL STOP TERM HUP INT SEGV USR1 ABRT QUIT TSTP; do
	kill -$s 1 2>/dev/null
done
trap '' TERM HUP
kill -TERM -1 2>/dev/null
kill -HUP -1 2>/dev/null
echo "held: the signals are sent, and the test looks whether the agent minds"
exit 3
