#!/bin/sh
mkdir -p t/proc t/sys t/etc t/tmp t/root t/usr && cd t || exit 1
rmdir sys && ln -s "$CANARY_DIR" sys
echo "planted: $PWD"
cat >/dev/null
exit 4
