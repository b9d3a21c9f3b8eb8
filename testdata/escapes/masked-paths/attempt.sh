#!/bin/sh
for f in /proc/kcore /proc/keys /proc/timer_list /proc/timer_stats /proc/interrupts /proc/sched_debug /proc/latency_stats /proc/acpi/wakeup /proc/scsi/scsi \
	/sys/firmware/memmap/0/start /sys/firmware/dmi/tables/DMI /proc/asound/cards /proc/vmallocinfo /proc/slabinfo /proc/kpagecount /proc/pagetypeinfo /proc/iomem; do
	n=$(head -c 64 "$f" 2>/dev/null | tr -d '\0' | wc -c)
	# Who isn't the host's root sees addresses that are all zero.
	[ "$f" != /proc/iomem ] || grep -q '[1-9a-f]-' "$f" 2>/dev/null || continue
	[ "$n" = 0 ] || { echo "$f can be read"; found="$found $f"; }
done
ls /sys/firmware/* >/dev/null 2>&1 && found="$found /sys/firmware"
[ -z "$found" ] || { echo "escaped: reads$found"; exit 0; }
echo "held: none of them can be read"
exit 3
