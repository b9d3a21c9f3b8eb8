#!/bin/sh
mkdir tree && echo planted >tree/x || exit 1
ln -s "$CANARY_DIR" tree/link
ln tree/x tree/hard
# A link, and a file through it; then a file by .. and one by an absolute name.
tar -cf a1 -C tree link || exit 1
tar -cf a2 -P -C tree --transform='s|^x$|link/through|' x || exit 1
tar -cf a3 -P -C tree --transform="s|^x\$|../../../../../../../../../..$CANARY_DIR/dots|" x || exit 1
tar -cf a4 -P -C tree --transform="s|^x\$|$CANARY_DIR/absolute|" x || exit 1
tar -cf a5 -P -C tree --transform="s|^hard\$|$CANARY_FILE|hRS" hard x || exit 1
tar -Af a1 a2 || exit 1
echo "planted: $PWD/a1 $PWD/a3 $PWD/a4 $PWD/a5"
cat >/dev/null
exit 4
