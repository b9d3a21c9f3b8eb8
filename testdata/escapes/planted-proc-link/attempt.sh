#!/bin/sh
paths=
for name in mem environ maps stat fd root cwd; do
	ln -s /proc/self/$name $name
	ln -s /proc/1/$name 1-$name
	# Outside of a sandbox the host's own memory has no end that it would stop at.
	[ -n "$AGENT_SOCKET" ] && paths="$paths $PWD/$name $PWD/1-$name"
done
for fd in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 "$CANARY_FD"; do
	# What else the tests have open isn't to be read from.
	[ -n "$AGENT_SOCKET" ] || [ "$fd" = "$CANARY_FD" ] || continue
	ln -sf /proc/self/fd/$fd $fd
	paths="$paths $PWD/$fd"
done
echo "planted:$paths"
cat >/dev/null
exit 4
