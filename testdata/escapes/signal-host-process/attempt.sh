#!/bin/sh
if kill -STOP "$CANARY_PID" 2>/dev/null; then
	while grep -q '^State:.*[RS] ' "/proc/$CANARY_PID/status"; do :; done
	echo "escaped: stopped process $CANARY_PID"
	exit 0
fi
ls "/proc/$CANARY_PID" >/dev/null 2>&1 && { echo "escaped: process $CANARY_PID shows"; exit 0; }
echo "held: there is no process $CANARY_PID"
exit 3
