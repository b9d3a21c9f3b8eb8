#!/bin/sh
mkdir plain
ln -s "$CANARY_DIR" plain/dir
ln -s "$CANARY_DIR" dir
echo "planted: $PWD"
cat >/dev/null
exit 4
