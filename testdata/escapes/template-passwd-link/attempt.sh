#!/bin/sh
mkdir -p t/proc t/sys t/etc t/tmp t/root t/usr && cd t || exit 1
ln -s "$CANARY_FILE" etc/passwd && ln -s "$CANARY_FILE" etc/group && ln -s "$CANARY_FILE" etc/hosts
echo "planted: $PWD"
cat >/dev/null
exit 4
