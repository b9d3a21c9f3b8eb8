#!/bin/sh
ln -s "$CANARY_DIR" dir
echo "planted: $PWD/dir/new/deeper"
cat >/dev/null
exit 4
