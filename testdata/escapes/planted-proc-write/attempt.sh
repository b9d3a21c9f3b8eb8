#!/bin/sh
paths=
for name in self/mem self/attr/current self/oom_score_adj self/coredump_filter self/clear_refs 1/mem 1/oom_score_adj self/uid_map self/sched \
	sysrq-trigger sys/kernel/core_pattern sys/kernel/hostname sys/vm/overcommit_memory self/task/1/comm; do
	link=$(echo $name | tr / -)
	ln -s /proc/$name $link
	paths="$paths $PWD/$link /proc/$name"
done
echo "planted:$paths"
cat >/dev/null
exit 4
