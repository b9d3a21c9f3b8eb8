#!/bin/sh
[ -e /proc/sys/fs/binfmt_misc ] || { echo "absent: there is no binfmt_misc"; exit 5; }
(exec 3>>/proc/sys/fs/binfmt_misc/register) 2>/dev/null && { echo "escaped: opened register"; exit 0; }
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null && { echo "escaped: mounted it"; exit 0; }
grep -qw binfmt_misc /proc/filesystems || { echo "absent: there is no binfmt_misc"; exit 5; }
echo "held: binfmt_misc is out of reach"
exit 3
