package engine

import (
	"log/slog"
	"math"
	"os"
	"path"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/nestbox/nestbox/rootfs"
	"github.com/nestbox/nestbox/store"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Options are those of an engine. The zero Options are useful.
type Options struct {
	// Dir is the state directory, which is made if it isn't there. It belongs to one user, and any number
	// of engines of that user can share it. Its file system must be one that an overlay can write to, such as
	// ext4, xfs, btrfs or tmpfs. Empty: /var/lib/nestbox as root, else $XDG_STATE_HOME/nestbox.
	Dir string
	// Templates is the directory of the templates, <name>/rootfs. Empty: Dir/templates.
	Templates string
	// Store remembers the sandboxes. It stays the caller's. Nil: an SQLite file in Dir.
	Store store.Store
	// MaxKeepAlive bounds keep-alives and grace times. Zero: one hour; negative: no bound.
	MaxKeepAlive time.Duration
	// Limits are those of sandboxes whose CreateOptions say nothing. Zero fields: 512 MiB of memory, 1 CPU,
	// 512 processes, 4096 open files, 2 GiB of disk, 4000 transfers.
	Limits Limits
	// Pool says which sandboxes the engine keeps ready. They are claimed by Create.
	Pool []PoolSpec
	// Logger is told what has no caller to return to. Nil: silent.
	Logger *slog.Logger
}

// Limits bound what a sandbox takes of the host. In CreateOptions a zero field is the engine's, in Options
// its default; a negative one is no limit.
type Limits struct {
	// Memory is bytes, swap included; at least 16 MiB. The kernel ends processes to keep to it. Not all that it has for a
	// sandbox it counts: of what waits in sockets of netlink, and of sockets themselves, an engine that is open looks whether
	// they take more than Memory again, and ends the sandbox, whose lease says lease.OOM, if its network is its own.
	Memory    int64
	CPUs      float64 // processors' worth of time, of each 10 ms (below 0.1: 100 ms); 0.01 to 65536
	Processes int     // processes and threads, with some 17 of the agent's; 32 to 4194304
	OpenFiles int     // open files of each process; at least 64
	// Disk is bytes of what the sandbox writes to its own files, 1 MiB to 1 TiB. Beside it there can be a file
	// for each 16 KiB, and 1024 at least. What is over is refused with ENOSPC.
	//
	// It is enforced by a file system of the sandbox's own, ext4 on a loop device, in a sparse file in the state
	// directory: that takes what is written of the state directory's file system, not what is allowed. If that
	// file system itself is full, the guest's programs are told only when they sync after the kernel has tried to
	// write, and lose what they wrote.
	// Where the host has no loop devices or no ext4, Create is errors.ErrUnsupported unless Disk is negative.
	Disk int64
	// DiskIOPS is how many times a second the disk that Disk gives the sandbox is read, and how many times it is
	// written, 100 to 1 000 000. A transfer can have some 1 MiB. What is in the sandbox's page cache needs none; who asks
	// for more waits. Others would have to, too, as the kernel's threads that carry a disk's transfers count for nobody's
	// CPUs. It needs the cgroup controller io (blkio in version 1), without which Create is errors.ErrUnsupported unless
	// DiskIOPS or Disk is negative. Without Disk there is no such limit. Where a sandbox reads the template, or a Mount,
	// it doesn't count, and in version 1 neither does what the kernel writes back later of the page cache.
	DiskIOPS int
}

var defaultLimits = Limits{Memory: 512 << 20, CPUs: 1, Processes: 512, OpenFiles: 4096, Disk: 2 << 30, DiskIOPS: 4000}

// Network is what a sandbox sees of the network.
type Network int

const (
	// NetworkNone is a network of the sandbox's own, with nothing but loopback.
	NetworkNone Network = iota
	// NetworkHost is the host's network, with all that listens on its loopback addresses.
	NetworkHost
)

// Mount puts a directory or file of the host's into a sandbox, read-only unless it says so.
type Mount = rootfs.Mount

// CreateOptions are those of a sandbox. The zero CreateOptions are useful.
type CreateOptions struct {
	Template  string            // name in the catalog, or the absolute path of a root file system; empty: "base"
	Metadata  map[string]string // at most 256 entries, a key of at most 256 bytes, all of at most 64 KiB
	KeepAlive time.Duration     // as KeepAlive, from the start; zero: none
	Grace     time.Duration     // how long the sandbox outlives its last handle, up to MaxKeepAlive; zero: not at all
	Env       []string          // "KEY=value", for every command; of the host's environment nothing is passed on
	Dir       string            // where commands and relative names start, made if it isn't there; empty: the user's home
	User      string            // of commands and files: "name", "uid" or "uid:gid"; empty: the template's, else root
	Hostname  string            // empty: "sandbox"
	Network   Network           // zero: NetworkNone
	Limits    Limits            // zero fields: the engine's
	Mounts    []Mount           // added to the template's

	// Seccomp is the profile by which the kernel decides on each system call of the sandbox's, the agent's among
	// them, which must be able to work. Its architectures other than this machine's stay denied. Nil: that of
	// DefaultSeccomp; SeccompUnconfined: none.
	Seccomp *specs.LinuxSeccomp

	// AppArmor is the name of a profile that is loaded in the kernel, and SELinux a label, for the agent and all
	// commands. The agent must be able to work with it, and with SELinux to use the files of the state directory
	// and the templates, which keep their labels. Where the kernel hasn't the module enabled, Create is
	// errors.ErrUnsupported. Empty: none, and with SELinux that of the program.
	AppArmor, SELinux string
}

// The bounds of metadata.
const (
	maxMetadata      = 256
	maxMetadataKey   = 256
	maxMetadataBytes = 64 << 10
)

// The bounds of the rest.
const (
	maxMounts = 64
	minMemory = 16 << 20
	minCPUs   = 0.01
	maxCPUs   = 1 << 16
	minProcs  = 32
	maxProcs  = 1 << 22 // PID_MAX_LIMIT of proc_sys_kernel(5), which cgroups take at most
	minFiles  = 64
	minIOPS   = 100
	maxIOPS   = 1_000_000
)

// or gives the limits with those of base in the place of zero, and checks them.
func (l Limits) or(base Limits) (Limits, error) {
	l = Limits{
		Memory:    orElse(l.Memory, base.Memory),
		CPUs:      orElse(l.CPUs, base.CPUs),
		Processes: orElse(l.Processes, base.Processes),
		OpenFiles: orElse(l.OpenFiles, base.OpenFiles),
		Disk:      orElse(l.Disk, base.Disk),
		DiskIOPS:  orElse(l.DiskIOPS, base.DiskIOPS),
	}
	switch {
	case l.Memory > 0 && l.Memory < minMemory:
		return l, invalid("Limits.Memory", "%d bytes; at least %d, or negative for no limit", l.Memory, minMemory)
	case l.CPUs > 0 && l.CPUs < minCPUs, l.CPUs > maxCPUs, math.IsNaN(l.CPUs), math.IsInf(l.CPUs, 0):
		return l, invalid("Limits.CPUs", "%v; at least %v and at most %d, or negative for no limit", l.CPUs, minCPUs, maxCPUs)
	case l.Processes > 0 && l.Processes < minProcs, l.Processes > maxProcs:
		return l, invalid("Limits.Processes", "%d; at least %d and at most %d, or negative for no limit", l.Processes, minProcs, maxProcs)
	case l.OpenFiles > 0 && l.OpenFiles < minFiles:
		return l, invalid("Limits.OpenFiles", "%d; at least %d, or negative for no limit", l.OpenFiles, minFiles)
	case l.Disk > 0 && l.Disk < rootfs.MinDisk, l.Disk > rootfs.MaxDisk:
		return l, invalid("Limits.Disk", "%d bytes; at least %d and at most %d, or negative for no limit", l.Disk, rootfs.MinDisk, rootfs.MaxDisk)
	case l.DiskIOPS > 0 && l.DiskIOPS < minIOPS, l.DiskIOPS > maxIOPS:
		return l, invalid("Limits.DiskIOPS", "%d; at least %d and at most %d, or negative for no limit", l.DiskIOPS, minIOPS, maxIOPS)
	}
	return l, nil
}

func orElse[T int | int64 | float64](v, base T) T {
	if v == 0 {
		return base
	}
	return v
}

// check tells what is wrong with options, short of what only the host can tell.
func (o CreateOptions) check(maxKeepAlive time.Duration) error {
	if err := checkMetadata(o.Metadata); err != nil {
		return err
	}
	if err := checkDuration("KeepAlive", o.KeepAlive, maxKeepAlive); err != nil {
		return err
	}
	if err := checkDuration("Grace", o.Grace, maxKeepAlive); err != nil {
		return err
	}
	if !utf8.ValidString(o.Template) { // which a store need not take
		return invalid("Template", "%.64q is not UTF-8", o.Template)
	}
	if field, reason := (rootfs.Config{User: o.User, Env: o.Env, Dir: o.Dir}).Fault(); field != "" {
		return &InvalidError{field, reason}
	}
	if err := checkHostname(o.Hostname); err != nil {
		return err
	}
	if o.Network != NetworkNone && o.Network != NetworkHost {
		return invalid("Network", "%d is none", o.Network)
	}
	return checkMounts(o.Mounts)
}

// checkMounts checks each mount, and that none is in the way of a later one.
func checkMounts(mounts []Mount) error {
	if len(mounts) > maxMounts {
		return invalid("Mounts", "%d; at most %d", len(mounts), maxMounts)
	}
	isDir := map[string]bool{} // by target
	for _, m := range mounts {
		if err := m.Check(); err != nil {
			return invalid("Mounts", "%v", err)
		}
		if _, twice := isDir[m.Target]; twice {
			return invalid("Mounts", "%.128q is the target of two: leave one out", m.Target)
		}
		for dir := path.Dir(m.Target); dir != "/"; dir = path.Dir(dir) {
			if d, mounted := isDir[dir]; mounted && !d {
				return invalid("Mounts", "%.128q is below %.128q, where a file is mounted: choose another target", m.Target, dir)
			}
		}
		fi, err := os.Stat(m.Source)
		isDir[m.Target] = err != nil || fi.IsDir()
	}
	return nil
}

func checkMetadata(md map[string]string) error {
	if len(md) > maxMetadata {
		return invalid("Metadata", "%d entries; at most %d", len(md), maxMetadata)
	}
	n := 0
	for k, v := range md {
		if k == "" || len(k) > maxMetadataKey {
			return invalid("Metadata", "a key of %d bytes; 1 to %d", len(k), maxMetadataKey)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return invalid("Metadata", "%.64q is not UTF-8", k)
		}
		n += len(k) + len(v)
	}
	if n > maxMetadataBytes {
		return invalid("Metadata", "%d bytes in all; at most %d", n, maxMetadataBytes)
	}
	return nil
}

// checkDuration checks a keep-alive or a grace time; bound is as in Options, and not zero.
func checkDuration(field string, d, bound time.Duration) error {
	if d < 0 {
		return invalid(field, "%v is negative; 0 is none", d)
	}
	if bound >= 0 && d > bound {
		return tooLong(field, d, bound)
	}
	return nil
}

// hostname is what hostname(7) allows: elements that begin and end with a letter or a digit.
var hostname = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)

func checkHostname(name string) error {
	if name != "" && (len(name) > 63 || !hostname.MatchString(name)) {
		return invalid("Hostname", "%.80q; at most 63 letters, digits, '-' and '.', with letters or digits beside each '.'", name)
	}
	return nil
}
