#!/bin/sh
ln -s "$CANARY_DIR" link
ln -s "$CANARY_FILE" secret
echo "planted: $PWD"
cat >/dev/null
exit 4
