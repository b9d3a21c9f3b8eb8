#!/bin/sh
ln -s "$CANARY_FILE" absolute
ln -s "../../../../../../../../../..$CANARY_FILE" relative
ln -s "/proc/self/root$CANARY_FILE" root
ln -s "/proc/self/cwd/../../../../../../..$CANARY_FILE" cwd
echo "planted: $PWD/absolute $PWD/relative $PWD/root $PWD/cwd"
cat >/dev/null
exit 4
