package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nestbox/nestbox/engine/internal/container"
	"golang.org/x/sys/unix"
)

// probeHost looks at the kernel and how it is set up.
func probeHost() []Feature {
	return []Feature{
		probeKernel(),
		probeUserNamespaces(),
		probeFilesystem("overlayfs", "overlay", true, "modprobe overlay"),
		probeCgroups(),
		probeSeccomp(),
		probeFilesystem("ext4", "ext4", false, "modprobe ext4, or set Limits.Disk to -1: what a sandbox writes is then not limited"),
		probeLoop(),
		probeTransfers(),
		probeLandlock(),
	}
}

// probeKernel asks for the newest call that every sandbox needs, mount_setattr(2) of Linux 5.12. That an overlay
// takes an idmapped layer, since 5.19, shows when one is created.
func probeKernel() Feature {
	f := Feature{Name: "kernel", Required: true, Support: Supported, Remedy: "use Linux 5.19 or later"}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		f.Reason = unix.ByteSliceToString(name.Release[:])
	}
	if err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}); errors.Is(err, unix.ENOSYS) {
		f.Support = Unsupported
	}
	return f
}

func probeUserNamespaces() Feature {
	f := Feature{Name: "user namespaces", Required: true, Support: Supported, Remedy: "sysctl user.max_user_namespaces=65536, on a kernel with CONFIG_USER_NS"}
	const path = "/proc/sys/user/max_user_namespaces"
	data, err := os.ReadFile(path)
	n, aerr := strconv.Atoi(strings.TrimSpace(string(data)))
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.Support, f.Reason = Unsupported, "there is no "+path
	case err != nil || aerr != nil:
		f.Support, f.Reason = Unknown, errors.Join(err, aerr).Error()
	case n == 0:
		f.Support, f.Reason = Unsupported, path+" is 0"
	default:
		f.Reason = fmt.Sprintf("%s is %d", path, n)
	}
	return f
}

// probeFilesystem looks for a file system that the kernel has, or may load when it is first mounted.
func probeFilesystem(feature, name string, required bool, remedy string) Feature {
	f := Feature{Name: feature, Required: required, Support: Supported, Reason: "in /proc/filesystems", Remedy: remedy}
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		f.Support, f.Reason = Unknown, err.Error()
		return f
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return f
		}
	}
	f.Support, f.Reason = Unknown, "not in /proc/filesystems, but it may be a module that isn't loaded yet"
	return f
}

func probeCgroups() Feature {
	f := Feature{Name: "cgroups", Required: true, Support: Supported, Remedy: "boot with the cgroup controllers cpu, memory and pids, mounted at /sys/fs/cgroup and not read-only"}
	version, missing, err := container.Controllers()
	switch {
	case err != nil:
		f.Support, f.Reason = Unsupported, err.Error()
	case len(required(missing)) > 0:
		f.Support, f.Reason = Unsupported, version+" without "+strings.Join(required(missing), ", ")
	default:
		f.Reason = version
	}
	return f
}

// required are the controllers without which there are no sandboxes.
func required(controllers []string) []string {
	return slices.DeleteFunc(controllers, func(name string) bool { return name == "io" })
}

// probeTransfers looks for what limits the transfers of a sandbox's disk.
func probeTransfers() Feature {
	f := Feature{Name: "cgroup io", Support: Supported, Remedy: "boot with the cgroup controller io, which is blkio in version 1; or set Limits.DiskIOPS to -1: a sandbox that keeps its disk busy is then noticed by others"}
	version, missing, err := container.Controllers()
	switch {
	case err != nil:
		f.Support, f.Reason = Unknown, err.Error()
	case slices.Contains(missing, "io"):
		f.Support, f.Reason = Unsupported, version+" without io"
	default:
		f.Reason = version
	}
	return f
}

func probeSeccomp() Feature {
	f := Feature{Name: "seccomp", Required: true, Support: Supported, Reason: "filters", Remedy: "use a kernel with CONFIG_SECCOMP_FILTER, outside of a container that denies seccomp(2)"}
	// SECCOMP_MODE_FILTER without a filter is EFAULT where there are filters, see prctl(2).
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0); !errors.Is(err, unix.EFAULT) {
		f.Support, f.Reason = Unsupported, fmt.Sprintf("prctl: %v", err)
	}
	return f
}

func probeLoop() Feature {
	f := Feature{Name: "loop devices", Support: Supported, Reason: "/dev/loop-control", Remedy: "modprobe loop, and give a container /dev/loop-control and /dev/loop*; or set Limits.Disk to -1: what a sandbox writes is then not limited"}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		f.Support, f.Reason = Unsupported, err.Error()
	}
	return f
}

// probeLandlock looks for what keeps a sandbox with the host's network from the host's abstract unix sockets.
func probeLandlock() Feature {
	abi := container.LandlockABI()
	f := Feature{Name: "landlock scopes", Support: Supported, Reason: fmt.Sprintf("ABI %d", abi),
		Remedy: "use Linux 6.12 or later with landlock in its lsm= parameter; until then NetworkHost lets in the host's abstract unix sockets"}
	if abi < container.ScopesABI {
		f.Support = Unsupported
	}
	return f
}
