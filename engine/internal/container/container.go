// Package container makes the processes of a sandbox: its namespaces, cgroup, limits and mounts, with
// the agent as first process. It is the only package that knows runc's libcontainer, which promises no
// API, and is as dumb as it can be: plain data in, processes and descriptors out.
//
// Importing it installs a hook: libcontainer starts the program again as "/proc/self/exe init", with
// _LIBCONTAINER_INITPIPE in the environment, and that process must become the sandbox before main. The
// hook is the package's init; a program's own "init" argument is left alone. The program's other package
// initialisers that Go orders before it run in that process too.
//
// libcontainer marks all descriptors from 3 on in the host process close-on-exec whenever a sandbox is
// created.
package container

import (
	"os"
	"time"
)

// IDs is how many user ids, and how many group ids, a sandbox has.
const IDs = 1 << 16

// Config describes a sandbox to create.
type Config struct {
	ID          string
	StateDir    string // where libcontainer keeps its state, an absolute path
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

// agentPath is the agent's program as its own process sees it.
const agentPath = "/proc/self/fd/4"

// files are what the agent's process has as descriptors from 3 on; 0 to 2 are the null device.
func files(listen, agent *os.File) []*os.File { return []*os.File{listen, agent} }
