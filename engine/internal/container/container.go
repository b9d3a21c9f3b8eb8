// Package container makes the processes of a sandbox: its namespaces, cgroup, limits and mounts, with
// the agent as first process. It is the only package that knows runc's code, which promises no API, and is as dumb as it
// can be: plain data in, processes and descriptors out.
//
// A sandbox is described by an OCI spec. Of runc's it takes what turns that into mount flags and device rules, and its
// cgroups; the first process's own steps are in launch.c, from clone(2) to the execution of the agent. libcontainer's
// Start, which executes the host program again for them, took 17 ms of the 21 that a sandbox took, and two thirds of the
// processor time; launch.c takes 3 of 10.
package container

import (
	"time"
)

// IDs is how many user ids, and how many group ids, a sandbox has.
const IDs = 1 << 16

// Config describes a sandbox to create.
type Config struct {
	ID          string
	Root        string // where Start's prepare mounts the root file system
	Hostname    string
	HostNetwork bool
	UID         uint32 // the host's id for the sandbox's root; IDs follow
	CPUs        float64
	Processes   int64
	AppArmor    string // a profile's name; empty: none
	SELinux     string // the label of the agent and of what it starts; empty: the host program's
}

// Limits of a sandbox that lives. A zero field leaves what is, a negative one is no limit.
type Limits struct {
	Memory    int64 // bytes, swap included
	CPUs      float64
	Processes int64
	Disk      uint64 // the number of its disk's device, see makedev(3), for DiskIOPS
	DiskIOPS  int64  // reads, and as many writes, of the disk each second
}

// Usage is what a sandbox takes, and has taken, of the host.
type Usage struct {
	CPU              time.Duration // of all its processes
	Throttled        time.Duration // for which the limit on CPU held them up
	Memory           int64         // bytes, with what of the page cache is charged to it
	MemoryPeak       int64         // bytes; 0 where the kernel doesn't tell
	Processes        int           // and threads
	OOMKills         uint64
	ProcessesRefused uint64 // forks for which the limit on processes left no room
}

// ScopesABI is the first version of Landlock's ABI that has scopes, that of Linux 6.12. See LandlockABI.
const ScopesABI = 6

// agentPath is the agent's program as its own process sees it: descriptor 4. 3 is its listening socket, 0 to 2 are the
// sandbox's null device.
const agentPath = "/proc/self/fd/4"
