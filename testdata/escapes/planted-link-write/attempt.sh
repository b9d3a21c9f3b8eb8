#!/bin/sh
ln -s "$CANARY_FILE" file
ln -s "../../../../../../../../../..$CANARY_FILE" relative
ln -s "$CANARY_DIR/new" new
echo "planted: $PWD/file $PWD/relative $PWD/new"
cat >/dev/null
exit 4
