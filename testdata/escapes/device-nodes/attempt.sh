#!/bin/sh
for f in $(find /dev -type b -o -type c); do
	case $f in
	/dev/null | /dev/zero | /dev/full | /dev/random | /dev/urandom | /dev/tty | /dev/ptmx | /dev/pts/* | /dev/console) continue ;;
	# Those whose mere opening does something are only looked for.
	esac
	[ -r "$f" ] || [ -w "$f" ] && found="$found $f"
done
[ -z "$found" ] || { echo "escaped: may open$found" | cut -c1-500; exit 0; }
echo "held: there are none"
exit 3
