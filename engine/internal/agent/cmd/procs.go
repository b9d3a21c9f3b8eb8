//go:build linux

package main

import (
	"os"
	"runtime"
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

// execTimeout is how long a command may take between fork(2) and execve(2). A guest can stop it there, or keep
// its program from being executed by a lease, see fcntl(2), and no other command can be started meanwhile.
const execTimeout = 3 * time.Second

// busyTimeout is how long a program may be open for writing. Who has just written it may have closed it, and yet a
// process that was forked meanwhile, on the host or here, have it until its own exec.
const busyTimeout = 64 * time.Millisecond

// procs starts commands and reaps every process that ends in the sandbox.
type procs struct {
	null int    // /dev/null
	comm string // what the agent's threads are called, and its children until they execute a program

	// starts is read-locked while a command starts. Then its process must not be waited for by anybody else, and
	// so no process that isn't known.
	starts  sync.RWMutex
	over    chan struct{} // a start is over
	forking sync.Mutex    // one at a time: meanwhile the runtime keeps a processor for it, and needs another
	orphans chan struct{} // there may be some to reap when no command starts

	mu       sync.Mutex
	running  map[int]*command // by pid, until they are reaped
	starting int
	begun    int   // how many were started in all
	reaping  bool  // somebody is in reap
	stuck    timer // expires when none of those that start has got on for execTimeout
	// score is the agent's oom_score_adj, which a command inherits at its start. It is raised for that
	// moment, so that the kernel ends commands before it ends the agent.
	score              *os.File
	ownScore, cmdScore []byte
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

func newProcs() (*procs, error) {
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
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return nil, err
	}
	stuck, err := newTimer(unix.CLOCK_MONOTONIC)
	if err != nil {
		return nil, err
	}
	// None of 0 to 2, which a command's own are put at.
	null, err := unix.FcntlInt(uintptr(unix.Stdin), unix.F_DUPFD_CLOEXEC, unix.Stderr+1)
	if err != nil {
		return nil, err
	}
	return &procs{
		null:     null,
		comm:     strings.TrimSpace(string(comm)),
		over:     make(chan struct{}, 1),
		orphans:  make(chan struct{}, 1),
		stuck:    stuck,
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
	// once it has been, and must not wait: nothing else is reaped meanwhile.
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

	for wait := time.Millisecond; ; wait *= 2 {
		pid, err := p.fork(l, attr)
		if err == nil {
			return pid, nil
		}
		if errno := errnoOf(err); errno != unix.ETXTBSY || wait > busyTimeout {
			return 0, &startError{wire.StageExec, errno}
		}
		time.Sleep(wait) // nothing tells when the last writer is gone
	}
}

// fork starts a command, once.
func (p *procs) fork(l launch, attr *syscall.ProcAttr) (pid int, err error) {
	defer tell(p.over)
	p.starts.RLock()
	defer p.starts.RUnlock()
	p.countStart(1)
	p.forking.Lock()
	pid, err = forkExec(l.Path, l.Args, attr)
	p.forking.Unlock()
	p.countStart(-1)
	if err != nil {
		return 0, err
	}
	cmd := &command{pid: pid, exited: l.exited}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[pid] = cmd
	p.begun++
	l.started(cmd)
	return pid, nil
}

// forkExec is syscall.ForkExec for a process that has the kernel's default timer slack, and not the agent's, which is
// longer, see PR_SET_TIMERSLACK(2const).
func forkExec(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	const slack = 50000 // ns
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0) // no seccomp profile's denial keeps a command from being started
	return syscall.ForkExec(path, argv, attr)
}

// countStart counts the commands that start. While there are any the agent's oom_score_adj is raised, and the timer set:
// anew with each that has got on, as they start one after the other.
func (p *procs) countStart(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.starting
	p.starting += n
	switch {
	case p.starting == 0:
		p.stuck.in(0)
		_, _ = p.score.WriteAt(p.ownScore, 0)
	case before == 0:
		_, _ = p.score.WriteAt(p.cmdScore, 0)
		p.stuck.in(execTimeout)
	case n < 0:
		p.stuck.in(execTimeout)
	}
}

// freeStuck kills what has been between fork(2) and execve(2) for too long.
func (p *procs) freeStuck() {
	for {
		p.stuck.wait()
		p.killStarting()
		p.mu.Lock()
		if p.starting > 0 { // what is there now may get stuck, too
			p.stuck.in(execTimeout)
		}
		p.mu.Unlock()
	}
}

// killStarting kills the processes that have not executed a program yet. A guest's own that is called like the
// agent dies with them.
func (p *procs) killStarting() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// pid (comm) state ppid, see proc_pid_stat(5)
		stat := string(data)
		open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
		if open < 0 || end < open || stat[open+1:end] != p.comm {
			continue
		}
		if f := strings.Fields(stat[end+1:]); len(f) > 1 && f[1] == "1" {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
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

// reap waits for whatever ends, until there are no processes, unless another does. Who starts a command calls it when
// all else is done. So what ends wakes a thread that is there for it, where a signal would wake one to wake it; and none
// has to be woken for that before.
func (p *procs) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaping {
		return
	}
	p.reaping = true
	for begun := -1; begun != p.begun; {
		begun = p.begun
		p.mu.Unlock()
		for awaitChild() != unix.ECHILD {
			p.reapEnded()
		}
		p.mu.Lock()
	}
	p.reaping = false
}

// reapEnded waits for what has ended.
func (p *procs) reapEnded() {
	if p.starts.TryLock() {
		p.reapSome()
		p.starts.Unlock()
		return
	}
	some := false
	for _, pid := range p.known() {
		some = p.reapOne(pid) || some
	}
	if some {
		return
	}
	tell(p.orphans)
	select {
	case <-p.over:
	case <-time.After(10 * time.Millisecond): // a known one may end, while another is stuck at its start
	}
}

// reapOrphans waits, when no command starts, for what reap had to leave.
func (p *procs) reapOrphans() {
	for range p.orphans {
		p.starts.Lock()
		p.reapSome()
		p.starts.Unlock()
	}
}

// tell sends an event to a channel that holds one, for whoever looks next.
func tell(events chan<- struct{}) {
	select {
	case events <- struct{}{}:
	default:
	}
}

// awaitChild waits until there is a process to reap. It is ECHILD if there are none at all.
func awaitChild() syscall.Errno {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, 0, unix.WEXITED|unix.WNOWAIT, 0, 0)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// reapSome waits for what has ended, but lets others start something then, however much ends meanwhile.
func (p *procs) reapSome() {
	for range 256 {
		if !p.reapOne(-1) {
			return
		}
	}
}

// known gives the processes of the commands that run.
func (p *procs) known() (pids []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid := range p.running {
		pids = append(pids, pid)
	}
	return pids
}

// reapOne waits for a known process, or with -1 for any, that has ended. It is false if there is none.
func (p *procs) reapOne(which int) bool {
	p.mu.Lock()
	if which > 0 && p.running[which] == nil { // it is another's number by now
		p.mu.Unlock()
		return false
	}
	var status unix.WaitStatus
	var usage unix.Rusage
	pid, err := unix.Wait4(which, &status, unix.WNOHANG, &usage)
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
		c.exited(wire.Exit{
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
