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

// start starts a command, whose Path, Env and Dir are worked out, in a session and so in a process group
// of its own. It borrows fds. started is called under the lock, so that the command is known before it can be
// reaped; exited is called once it has been, on a goroutine of its own, for a handle that doesn't read may keep
// it waiting.
func (p *procs) start(c wire.Command, fds []int, cred *credential, started func(*command), exited func(wire.Exit)) (pid int, _ *startError) {
	if err := checkDir(c.Dir, cred); err != 0 {
		return 0, &startError{wire.StageChdir, err}
	}
	attr := &syscall.ProcAttr{Dir: c.Dir, Env: c.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	for n := range 3 {
		fd := int(p.null.Fd())
		if c.Stdio&(1<<n) != 0 {
			fd, fds = fds[0], fds[1:]
		}
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if !cred.root() {
		attr.Sys.Credential = &syscall.Credential{Uid: cred.uid, Gid: cred.gid, Groups: cred.groups}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.score.WriteAt(p.cmdScore, 0)
	pid, err := syscall.ForkExec(c.Path, c.Args, attr)
	_, _ = p.score.WriteAt(p.ownScore, 0)
	if err != nil {
		return 0, &startError{wire.StageExec, errnoOf(err)}
	}
	cmd := &command{pid: pid, exited: exited}
	p.running[pid] = cmd
	started(cmd)
	return pid, nil
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
// command's environment.
func lookPath(file string, env []string) (string, *startError) {
	if strings.Contains(file, "/") {
		return file, nil
	}
	var path string
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	if file == "" || path == "" {
		return "", &startError{wire.StageLookup, unix.ENOENT}
	}
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		name := dir + "/" + file
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Mode&0o111 == 0 {
			continue
		}
		if dir[0] != '/' {
			return "", &startError{wire.StageDot, unix.ENOENT}
		}
		return name, nil
	}
	return "", &startError{wire.StageLookup, unix.ENOENT}
}

// checkDir tells early, and clearly, why a command couldn't start in dir.
func checkDir(dir string, cred *credential) syscall.Errno {
	return errnoOf(cred.do(func() error {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}))
}
