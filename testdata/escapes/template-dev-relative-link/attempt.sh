#!/bin/sh
mkdir -p t/proc t/sys t/etc t/tmp t/root t/usr && cd t || exit 1
ln -s "../../../../../../../../../..$CANARY_DIR" dev
echo "planted: $PWD"
cat >/dev/null
exit 4
