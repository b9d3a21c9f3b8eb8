//go:build linux

package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// maxScore is the largest oom_score_adj, see proc_pid_oom_score_adj(5).
const maxScore = 1000

// procs starts commands and reaps every process that ends in the sandbox.
type procs struct {
	null *os.File
	// score is the agent's oom_score_adj, which a command inherits at its start. It is raised for that
	// moment, so that the kernel ends commands before it ends the agent.
	score              *os.File
	ownScore, cmdScore []byte

	mu      sync.Mutex
	running map[int]*command // by pid, until they are reaped
}

// command is a process that a handle started.
type command struct {
	pid    int // 0: reaped
	exited func(wire.Exit)
}

// startError says at which stage a start failed.
type startError struct {
	stage string
	errno syscall.Errno
}

func newProcs(null *os.File) (*procs, error) {
	f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 16)
	n, err := f.Read(buf)
	if err != nil {
		return nil, err
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return nil, err
	}
	return &procs{
		null:     null,
		score:    f,
		ownScore: strconv.AppendInt(nil, int64(own), 10),
		cmdScore: strconv.AppendInt(nil, int64(min(own+500, maxScore)), 10),
		running:  map[int]*command{},
	}, nil
}

// launch is a command with all that it takes to start it: its Path, Env and Dir are worked out.
type launch struct {
	wire.Command
	cred  *credential
	stdio [3]int // borrowed; -1: closed
	// started is called under the lock, so that the command is known before it can be reaped. exited is called
	// once it has been, on a goroutine of its own, for a handle that doesn't read may keep it waiting.
	started func(*command)
	exited  func(wire.Exit)
}

// start starts a command in a session, and so in a process group, of its own.
func (p *procs) start(l launch) (pid int, _ *startError) {
	if err := checkDir(l.Dir, l.cred); err != 0 {
		return 0, &startError{wire.StageChdir, err}
	}
	attr := &syscall.ProcAttr{Dir: l.Dir, Env: l.Env, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: l.PTY}}
	for _, fd := range l.stdio {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if !l.cred.root() {
		attr.Sys.Credential = &syscall.Credential{Uid: l.cred.uid, Gid: l.cred.gid, Groups: l.cred.groups}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.score.WriteAt(p.cmdScore, 0)
	pid, err := syscall.ForkExec(l.Path, l.Args, attr)
	_, _ = p.score.WriteAt(p.ownScore, 0)
	if err != nil {
		return 0, &startError{wire.StageExec, errnoOf(err)}
	}
	cmd := &command{pid: pid, exited: l.exited}
	p.running[pid] = cmd
	l.started(cmd)
	return pid, nil
}

// started tells whether a handle started the process, and it hasn't been reaped.
func (p *procs) started(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[pid] != nil
}

// signal sends sig to a command's process group, or with 0 asks whether it has been reaped.
func (p *procs) signal(c *command, sig syscall.Signal, group bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.pid == 0 {
		return unix.ESRCH
	}
	if group {
		return unix.Kill(-c.pid, sig)
	}
	return unix.Kill(c.pid, sig)
}

// reap waits for whatever ends, at each SIGCHLD.
func (p *procs) reap(children <-chan os.Signal) {
	for range children {
		for p.reapOne() {
		}
	}
}

func (p *procs) reapOne() bool {
	p.mu.Lock()
	var status unix.WaitStatus
	var usage unix.Rusage
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
	if err == unix.EINTR {
		p.mu.Unlock()
		return true
	}
	if err != nil || pid <= 0 {
		p.mu.Unlock()
		return false
	}
	c := p.running[pid]
	if c != nil {
		c.pid = 0
		delete(p.running, pid)
	}
	p.mu.Unlock()
	if c != nil {
		go c.exited(wire.Exit{
			Status:    uint32(status),
			User:      time.Duration(usage.Utime.Nano()),
			Sys:       time.Duration(usage.Stime.Nano()),
			MaxRSSKiB: uint64(usage.Maxrss),
		})
	}
	return true
}

// lookPath finds a program as os/exec does: a name with a slash as it is, another in the PATH of the
// command's environment, if the user may execute it. Relative entries of PATH start at wd.
func lookPath(file, wd string, env []string, cred *credential) (path string, serr *startError) {
	if strings.Contains(file, "/") {
		return file, nil
	}
	var list string
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			list = v
		}
	}
	serr = &startError{wire.StageLookup, unix.ENOENT}
	if file == "" || list == "" {
		return "", serr
	}
	_ = cred.do(func() error {
		for dir := range strings.SplitSeq(list, ":") {
			name := dir + "/" + file
			if !strings.HasPrefix(dir, "/") {
				name = wd + "/" + name
			}
			if !executable(name) {
				continue
			}
			if path, serr = name, nil; !strings.HasPrefix(dir, "/") {
				path, serr = "", &startError{wire.StageDot, unix.ENOENT}
			}
			return nil
		}
		return nil
	})
	return path, serr
}

// executable tells whether the thread's user may execute the file. That root may, by its capabilities, is not
// enough.
func executable(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Mode&0o111 != 0 &&
		unix.Faccessat(unix.AT_FDCWD, name, unix.X_OK, unix.AT_EACCESS) == nil
}

// checkDir tells that a directory to start in isn't there. All else that is wrong with it the kernel tells.
func checkDir(dir string, cred *credential) syscall.Errno {
	return errnoOf(cred.do(func() error {
		var st unix.Stat_t
		return unix.Stat(dir, &st)
	}))
}
