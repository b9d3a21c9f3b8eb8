package container

import (
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// capabilities are those that root in a user namespace needs to manage its own files, ids, processes
// and low ports; see capabilities(7).
var capabilities = []string{
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_NET_BIND_SERVICE",
	"CAP_SETGID",
	"CAP_SETPCAP",
	"CAP_SETUID",
}

// maskedPaths can't be read in a sandbox: runc's list, and what else tells of the host.
var maskedPaths = []string{
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/powercap",
	"/sys/firmware",
}

// readonlyPaths can't be written in a sandbox.
var readonlyPaths = []string{
	"/proc/bus",
	"/proc/fs",
	"/proc/irq",
	"/proc/sys",
	"/proc/sysrq-trigger",
}

// agentEnv are settings of the agent's Go runtime, which it would otherwise have to change. No command has them.
var agentEnv = []string{"GOMAXPROCS=2", "GOGC=50"}

// The times that a processor quota refers to, in µs. A sandbox with the time of one processor may have two for the first
// half of each: a short one lets others wait less. The kernel takes no quota below 1 ms, see cpu.max in its cgroup-v2
// document, for which less than a tenth of a processor needs the long one.
const (
	cpuPeriod     = 10_000
	longCPUPeriod = 100_000
	minCPUQuota   = 1000
)

// Spec is cfg in the terms of the OCI runtime specification. The user namespace, which every sandbox has, isn't in it: it
// is made before, for the mounts. Nor is the memory limit. The sandbox's first process shares the memory of the host
// program until it executes the agent, and with it the kernel would end the host program; see SetLimits.
func (cfg Config) Spec() *specs.Spec {
	spec := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: cfg.Root},
		Hostname: cfg.Hostname,
		Process: &specs.Process{
			Args:            []string{agentPath},
			Env:             agentEnv,
			Cwd:             "/",
			NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{
				Bounding:  capabilities,
				Effective: capabilities,
				Permitted: capabilities,
			},
		},
		Mounts: mounts(cfg.HostNetwork),
		Linux: &specs.Linux{
			CgroupsPath:   cgroupPath(cfg.ID),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
			Resources:     cfg.resources(),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.CgroupNamespace},
			},
		},
	}
	// A user namespace gives its root rights in namespaces of its own, and so much of the kernel to attack and to
	// use up that the sandbox's limits don't count.
	spec.Linux.Sysctl = map[string]string{"user.max_user_namespaces": "0"}
	if !cfg.HostNetwork {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		// No ICMP echo, see icmp(7): it reaches nobody but the sandbox, and what waits in its sockets counts for nobody.
		spec.Linux.Sysctl["net.ipv4.ping_group_range"] = "1 0"
	}
	return spec
}

func (cfg Config) resources() *specs.LinuxResources {
	r := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
	}
	if cfg.CPUs > 0 {
		quota, period := cpuTime(cfg.CPUs)
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if cfg.Processes > 0 {
		n := cfg.Processes
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return r
}

// cpuTime is processors' worth of time, in µs of a period.
func cpuTime(cpus float64) (quota int64, period uint64) {
	period = cpuPeriod
	if cpus*cpuPeriod < minCPUQuota {
		period = longCPUPeriod
	}
	return max(minCPUQuota, int64(math.Round(cpus*float64(period)))), period
}

func mounts(hostNetwork bool) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "dev", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=256"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	if hostNetwork { // sysfs shows the network namespace, which isn't the sandbox's own
		return append(list, specs.Mount{Destination: "/sys", Type: "tmpfs", Source: "sys",
			Options: []string{"nosuid", "noexec", "nodev", "ro", "size=0", "mode=555"}})
	}
	return append(list, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs",
		Options: []string{"nosuid", "noexec", "nodev", "ro"}})
}

// cgroupPath is a sandbox's cgroup, below the root of each hierarchy.
func cgroupPath(id string) string { return "/nestbox/" + id }
