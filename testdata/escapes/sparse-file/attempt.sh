#!/bin/sh
truncate -s 1T huge || exit 1
echo "planted: $PWD/huge"
cat >/dev/null
exit 4
