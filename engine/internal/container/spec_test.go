package container_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// config is what the tests below vary.
func config() container.Config {
	return container.Config{
		ID:        "0197",
		Root:      "/mnt",
		Hostname:  "sandbox",
		UID:       0x2000_0000,
		CPUs:      1,
		Processes: 512,
	}
}

// What every sandbox has, whatever its options are. A change here is a change of how well it is isolated.
func TestSpecOfEverySandbox(t *testing.T) {
	var none container.Config
	host, full := config(), config()
	host.HostNetwork = true
	for name, cfg := range map[string]container.Config{"zero": none, "full": full, "host network": host} {
		t.Run(name, func(t *testing.T) {
			spec := cfg.Spec()
			if !spec.Process.NoNewPrivileges {
				t.Error("NoNewPrivileges is not set")
			}
			caps := []string{
				"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
				"CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
			}
			if want := (&specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}); !reflect.DeepEqual(spec.Process.Capabilities, want) {
				t.Errorf("capabilities are %v, want %v", spec.Process.Capabilities, want)
			}
			if want := []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
				"/sys/devices/virtual/powercap", "/sys/firmware",
			}; !slices.Equal(spec.Linux.MaskedPaths, want) {
				t.Errorf("masked paths are %q, want %q", spec.Linux.MaskedPaths, want)
			}
			if want := []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}; !slices.Equal(spec.Linux.ReadonlyPaths, want) {
				t.Errorf("read-only paths are %q, want %q", spec.Linux.ReadonlyPaths, want)
			}
			if got, want := spec.Linux.Resources.Devices, []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}; !reflect.DeepEqual(got, want) {
				t.Errorf("device rules are %v, want %v", got, want)
			}
			if p := spec.Process; !slices.Equal(p.Env, []string{"GOMAXPROCS=2", "GOGC=50"}) || p.Cwd != "/" || p.Terminal || !slices.Equal(p.Args, []string{"/proc/self/fd/4"}) {
				t.Errorf("process is %+v, want the agent, with its settings for an environment", p)
			}
			if spec.Root.Path != cfg.Root || spec.Hostname != cfg.Hostname || spec.Linux.CgroupsPath != "/nestbox/"+cfg.ID {
				t.Errorf("root is %q, hostname %q, cgroup %q", spec.Root.Path, spec.Hostname, spec.Linux.CgroupsPath)
			}
			if spec.Hooks != nil || spec.Linux.RootfsPropagation != "" || spec.Linux.Devices != nil {
				t.Errorf("hooks are %v, propagation %q, devices %v, want none", spec.Hooks, spec.Linux.RootfsPropagation, spec.Linux.Devices)
			}
			if r := spec.Linux.Resources; r.Memory != nil {
				t.Errorf("memory is %v, want no limit while libcontainer starts the agent", r.Memory)
			}
		})
	}
}

func TestSpecNetwork(t *testing.T) {
	own := []specs.LinuxNamespaceType{
		specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace,
	}
	tests := []struct {
		name       string
		host       bool
		namespaces []specs.LinuxNamespaceType
		sysctl     map[string]string
		sys        string // the type of /sys
	}{
		{"loopback", false, append(slices.Clone(own), specs.NetworkNamespace), map[string]string{"net.ipv4.ping_group_range": "1 0", "user.max_user_namespaces": "0"}, "sysfs"},
		{"host", true, own, map[string]string{"user.max_user_namespaces": "0"}, "tmpfs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			cfg.HostNetwork = tt.host
			spec := cfg.Spec()
			var namespaces []specs.LinuxNamespaceType
			for _, ns := range spec.Linux.Namespaces {
				namespaces = append(namespaces, ns.Type)
				if ns.Path != "" {
					t.Errorf("%s namespace is that of %s, want a new one", ns.Type, ns.Path)
				}
			}
			if !slices.Equal(namespaces, tt.namespaces) {
				t.Errorf("namespaces are %q, want %q", namespaces, tt.namespaces)
			}
			if !maps.Equal(spec.Linux.Sysctl, tt.sysctl) {
				t.Errorf("sysctl is %q, want %q", spec.Linux.Sysctl, tt.sysctl)
			}
			for _, m := range spec.Mounts {
				if m.Destination == "/sys" && m.Type != tt.sys {
					t.Errorf("/sys is a %s, want %s", m.Type, tt.sys)
				}
			}
		})
	}
}

func TestSpecMounts(t *testing.T) {
	for _, host := range []bool{false, true} {
		cfg := config()
		cfg.HostNetwork = host
		types := map[string]string{}
		for _, m := range cfg.Spec().Mounts {
			types[m.Destination] = m.Type
			if m.Type == "bind" || m.Source != "" && m.Source[0] == '/' {
				t.Errorf("%s is %s of the host", m.Destination, m.Source)
			}
			for _, option := range []string{"nosuid", "noexec"} {
				if !slices.Contains(m.Options, option) {
					t.Errorf("%s has options %q, want %s", m.Destination, m.Options, option)
				}
			}
			// The sandbox's own devices are in /dev, and its terminals below.
			if m.Destination != "/dev" && m.Destination != "/dev/pts" && !slices.Contains(m.Options, "nodev") {
				t.Errorf("%s has options %q, want nodev", m.Destination, m.Options)
			}
			if m.Destination == "/sys" && !slices.Contains(m.Options, "ro") {
				t.Errorf("/sys has options %q, want ro", m.Options)
			}
		}
		want := map[string]string{"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs", "/dev/mqueue": "mqueue", "/sys": "sysfs"}
		if host {
			want["/sys"] = "tmpfs"
		}
		if !maps.Equal(types, want) {
			t.Errorf("mounts are %q, want %q", types, want)
		}
	}
}

func TestSpecLimits(t *testing.T) {
	tests := []struct {
		name   string
		set    func(*container.Config)
		quota  int64 // µs of each period; 0: no limit
		period uint64
		pids   int64 // 0: no limit
	}{
		{"as above", func(*container.Config) {}, 10_000, 10_000, 512},
		{"none", func(c *container.Config) { c.CPUs, c.Processes = 0, 0 }, 0, 0, 0},
		{"half a CPU", func(c *container.Config) { c.CPUs = 0.5 }, 5000, 10_000, 512},
		{"many CPUs", func(c *container.Config) { c.CPUs = 64 }, 640_000, 10_000, 512},
		{"a third of a CPU", func(c *container.Config) { c.CPUs = 1.0 / 3 }, 3333, 10_000, 512},
		{"a tenth of a CPU", func(c *container.Config) { c.CPUs = 0.1 }, 1000, 10_000, 512},
		{"less than the kernel takes of a short period", func(c *container.Config) { c.CPUs = 0.025 }, 2500, 100_000, 512},
		{"less than the kernel takes", func(c *container.Config) { c.CPUs = 0.001 }, 1000, 100_000, 512},
		{"one process", func(c *container.Config) { c.Processes = 1 }, 10_000, 10_000, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			tt.set(&cfg)
			spec := cfg.Spec()
			r := spec.Linux.Resources
			switch {
			case tt.quota == 0:
				if r.CPU != nil {
					t.Errorf("CPU is %+v, want no limit", r.CPU)
				}
			case r.CPU == nil || *r.CPU.Quota != tt.quota || *r.CPU.Period != tt.period:
				t.Errorf("CPU is %s, want %d of %d", cpu(r.CPU), tt.quota, tt.period)
			}
			switch {
			case tt.pids == 0:
				if r.Pids != nil {
					t.Errorf("processes are %d, want no limit", *r.Pids.Limit)
				}
			case r.Pids == nil || *r.Pids.Limit != tt.pids:
				t.Errorf("processes are %v, want %d", r.Pids, tt.pids)
			}
		})
	}
}

func cpu(c *specs.LinuxCPU) string {
	if c == nil {
		return "not limited"
	}
	return fmt.Sprintf("%d of %d", *c.Quota, *c.Period)
}
