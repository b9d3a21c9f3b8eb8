#!/bin/sh
mkdir plain
ln -s "$CANARY_FILE" file
ln -s "$CANARY_DIR" dir
ln -s "../../../../../../../../../..$CANARY_FILE" plain/relative
echo "planted: $PWD $PWD/dir"
cat >/dev/null
exit 4
