#!/bin/sh
mkdir -p t/proc t/sys t/etc t/tmp t/root t/usr && cd t || exit 1
mkdir dev && ln -s "$CANARY_FILE" dev/null
echo "planted: $PWD"
cat >/dev/null
exit 4
