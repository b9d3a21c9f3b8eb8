#!/bin/sh
[ -n "$AGENT_SOCKET" ] || exit 1 # it is for sandboxes alone
exec 2>/dev/null
mount -o remount,bind,rw /data 2>/dev/null
mount -o remount,rw /usr 2>/dev/null
(: >/data/new) && found=1
echo written >>/data/hello && found=1
ln -s x /data/link && found=1
chmod 777 /data/hello && found=1
touch /data/hello && found=1
(: >/usr/nestbox-escape) && found=1
(: >>/usr/bin/env) && found=1
(cd /proc/self/fd && exec 4</data/hello && echo written >>/proc/self/fd/4) && found=1
[ -z "$found" ] || { echo "escaped: wrote to it"; exit 0; }
echo "held: it is read-only"
exit 3
