package wire

import (
	"slices"
	"time"
)

// Config is what a fresh agent is told by the handle that made the sandbox.
type Config struct {
	User      string
	Dir       string   // empty: the user's home
	Env       []string // added to PATH, HOME and USER
	OpenFiles uint64   // of each process; 0: as the host program has it
	Grace     time.Duration
	KeepAlive time.Duration
	// Seccomp is the program for the kernel to run at each system call, as an array of its struct sock_filter, with
	// SeccompFlags of seccomp(2); empty: none.
	Seccomp      string
	SeccompFlags uint32
}

// Put adds c to m.
func (c Config) Put(m *Message) {
	m.Text(c.User).Text(c.Dir).Texts(c.Env).Uint(c.OpenFiles).Int(int64(c.Grace)).Int(int64(c.KeepAlive))
	m.Text(c.Seccomp).Uint(uint64(c.SeccompFlags))
}

// StartsLike tells whether commands start the same way with d.
func (c Config) StartsLike(d Config) bool {
	return c.User == d.User && c.Dir == d.Dir && slices.Equal(c.Env, d.Env)
}

// ReadConfig reads what Put added.
func ReadConfig(r *Reader) Config {
	return Config{
		User:      r.Text(),
		Dir:       r.Text(),
		Env:       r.Texts(),
		OpenFiles: r.Uint(),
		Grace:     time.Duration(r.Int()),
		KeepAlive: time.Duration(r.Int()),

		Seccomp:      r.Text(),
		SeccompFlags: uint32(r.Uint()),
	}
}

// Info is what an agent tells each handle.
type Info struct {
	Dir   string   // where relative names start
	Env   []string // what a command gets that names none
	Epoch uint8    // of what the handle sends from now on
}

// Put adds i to m.
func (i Info) Put(m *Message) { m.Text(i.Dir).Texts(i.Env).Uint(uint64(i.Epoch)) }

// ReadInfo reads what Put added.
func ReadInfo(r *Reader) Info { return Info{Dir: r.Text(), Env: r.Texts(), Epoch: uint8(r.Uint())} }

// Command is a command to start.
type Command struct {
	Path string
	Args []string
	// Env is the whole environment, unless Inherit says that it is the sandbox's.
	Env     []string
	Inherit bool
	Dir     string // empty: the sandbox's
	User    string // empty: the sandbox's
	Stdio   uint8  // bit n is set if a descriptor is sent for n; else it is the null device; and see below
	Spool   uint64 // bytes to keep of each output, whose descriptors get what is read then; 0: none
	// PTY starts the command on a terminal of Rows and Cols, whose master is sent back.
	PTY        bool
	Rows, Cols uint16
}

// The other bits of Stdio.
const (
	// StdioClosed, to be shifted by n, is set if the command is to start without a descriptor n.
	StdioClosed = 1 << 3
	// StdioMerged is set if descriptors 1 and 2 are the same, for which there is to be one spool.
	StdioMerged = 1 << 6
)

// Put adds c to m.
func (c Command) Put(m *Message) {
	m.Text(c.Path).Texts(c.Args).Texts(c.Env).Bool(c.Inherit).Text(c.Dir).Text(c.User).Uint(uint64(c.Stdio))
	m.Uint(c.Spool).Bool(c.PTY).Uint(uint64(c.Rows)).Uint(uint64(c.Cols))
}

// ReadCommand reads what Put added.
func ReadCommand(r *Reader) Command {
	return Command{
		Path:    r.Text(),
		Args:    r.Texts(),
		Env:     r.Texts(),
		Inherit: r.Bool(),
		Dir:     r.Text(),
		User:    r.Text(),
		Stdio:   uint8(r.Uint()),
		Spool:   r.Uint(),
		PTY:     r.Bool(),
		Rows:    uint16(r.Uint()),
		Cols:    uint16(r.Uint()),
	}
}

// Exit tells how a command ended.
type Exit struct {
	Status    uint32        // as wait(2) gives it
	User, Sys time.Duration // processor time, with what its reaped children took
	MaxRSSKiB uint64        // largest resident set
}

// Put adds e to m.
func (e Exit) Put(m *Message) {
	m.Uint(uint64(e.Status)).Uint(uint64(e.User)).Uint(uint64(e.Sys)).Uint(e.MaxRSSKiB)
}

// ReadExit reads what Put added.
func ReadExit(r *Reader) Exit {
	return Exit{
		Status:    uint32(r.Uint()),
		User:      time.Duration(r.Uint()),
		Sys:       time.Duration(r.Uint()),
		MaxRSSKiB: r.Uint(),
	}
}

// Process is a process of the sandbox.
type Process struct {
	PID, PPID  int
	Name       string   // as the kernel has it, 15 bytes at most
	Args       []string // as far as MaxArgs go
	User       string   // its name, or its number
	Start      int64    // ns since the epoch
	State      byte     // as proc_pid_stat(5) has it; 0: ended, and remembered
	Command    bool     // a handle started it
	Attachable bool     // it has a spool
}

// MaxArgs is how many bytes of its arguments a Process has.
const MaxArgs = 4 << 10

// Put adds p to m.
func (p Process) Put(m *Message) {
	m.Uint(uint64(p.PID)).Uint(uint64(p.PPID)).Text(p.Name).Texts(p.Args).Text(p.User).Int(p.Start)
	m.Uint(uint64(p.State)).Bool(p.Command).Bool(p.Attachable)
}

// ReadProcess reads what Put added.
func ReadProcess(r *Reader) Process {
	return Process{
		PID:        int(r.Uint()),
		PPID:       int(r.Uint()),
		Name:       r.Text(),
		Args:       r.Texts(),
		User:       r.Text(),
		Start:      r.Int(),
		State:      byte(r.Uint()),
		Command:    r.Bool(),
		Attachable: r.Bool(),
	}
}

// Stat is stat(2)'s answer, with the sandbox's own user and group ids.
type Stat struct {
	Dev, Ino, Nlink, Rdev uint64
	Mode, UID, GID        uint32
	Size, Blksize, Blocks int64
	Atime, Mtime, Ctime   int64 // ns since the epoch
}

// Put adds s to m.
func (s Stat) Put(m *Message) {
	m.Uint(s.Dev).Uint(s.Ino).Uint(s.Nlink).Uint(s.Rdev)
	m.Uint(uint64(s.Mode)).Uint(uint64(s.UID)).Uint(uint64(s.GID))
	m.Int(s.Size).Int(s.Blksize).Int(s.Blocks).Int(s.Atime).Int(s.Mtime).Int(s.Ctime)
}

// ReadStat reads what Put added.
func ReadStat(r *Reader) Stat {
	return Stat{
		Dev: r.Uint(), Ino: r.Uint(), Nlink: r.Uint(), Rdev: r.Uint(),
		Mode: uint32(r.Uint()), UID: uint32(r.Uint()), GID: uint32(r.Uint()),
		Size: r.Int(), Blksize: r.Int(), Blocks: r.Int(), Atime: r.Int(), Mtime: r.Int(), Ctime: r.Int(),
	}
}

// The stages at which OpStart can fail, beside the errno.
const (
	StageLookup = "lookup"    // no such program
	StageDot    = "dot"       // found only by a relative entry of PATH
	StageChdir  = "chdir"     // Dir
	StageUser   = "user"      // no such user
	StageExec   = "fork/exec" // fork(2) or execve(2)
	StageSpool  = "spool"     // no room for another
	StagePTY    = "pty"       // opening a terminal

	// StageSeccomp is that at which OpHold can fail besides.
	StageSeccomp = "seccomp"
)
