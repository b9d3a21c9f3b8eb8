#!/bin/sh
paths=
for f in "$CANARY_FILE" /data/hello /usr/bin/env /etc/ld.so.cache /proc/self/environ; do
	# Outside of a sandbox the host's programs are no canaries.
	[ -n "$AGENT_SOCKET" ] || [ "$f" = "$CANARY_FILE" ] || continue
	ln "$f" "link$(echo "$f" | tr / -)" && paths="$paths $PWD/link$(echo "$f" | tr / -)"
done
[ -n "$paths" ] || { echo "held: no file of the host's can be linked to"; exit 3; }
echo "planted:$paths"
cat >/dev/null
exit 4
