#!/bin/sh
ln -s "$CANARY_FILE" file
ln -s "$CANARY_DIR" dir
echo "planted: $PWD/file $PWD/dir $PWD/dir/secret"
cat >/dev/null
exit 4
