#!/bin/sh
ln -s "$CANARY_DIR" dir
echo "planted: $PWD/dir/ $PWD/dir/. $PWD/dir"
cat >/dev/null
exit 4
