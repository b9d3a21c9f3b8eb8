#!/bin/sh
mkfifo pipe || exit 1
echo "planted: $PWD/pipe"
cat >/dev/null
exit 4
