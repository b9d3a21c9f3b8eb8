#!/bin/sh
mkdir -p t/proc t/sys t/etc t/tmp t/root t/usr && cd t || exit 1
mkdir dev && ln -s "$CANARY_FILE" dev/console && ln -s "$CANARY_FILE" dev/ptmx && ln -s "$CANARY_DIR" dev/pts && ln -s "$CANARY_DIR" dev/shm
echo "planted: $PWD"
cat >/dev/null
exit 4
