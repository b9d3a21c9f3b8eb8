#!/bin/sh
mkdir -p t/proc t/sys t/etc t/tmp t/root t/usr && cd t || exit 1
rmdir root && ln -s "$CANARY_DIR" root
echo "planted: $PWD"
cat >/dev/null
exit 4
