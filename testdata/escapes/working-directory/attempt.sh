#!/bin/sh
paths=
for fd in 3 4 5 6 7 8 9 10; do
	ln -s /proc/self/fd/$fd fd$fd
	paths="$paths $PWD/fd$fd"
done
ln -s "$CANARY_DIR" dir
echo "planted:$paths $PWD/dir /proc/1/cwd /proc/self/fd/7/../../..$CANARY_DIR"
cat >/dev/null
exit 4
