//go:build linux

package main

import (
	"errors"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// defaultTerm is the kind of terminal that a host's most likely is.
const defaultTerm = "xterm-256color"

func (q *request) start() error {
	cmd := wire.ReadCommand(q.r)
	if err := q.r.Done(); err != nil {
		return err
	}
	l := launch{Command: cmd}
	if !q.stdio(&l) {
		return wire.ErrMessage
	}
	if serr := q.resolve(&l); serr != nil {
		return q.fail(serr.errno, serr.stage)
	}
	return q.slowThen(func(q *request) error { return q.launch(l) }, q.procs.reap)
}

// launch starts a command, unless a pause has begun meanwhile.
func (q *request) launch(l launch) error {
	q.gate.RLock()
	defer q.gate.RUnlock()
	if q.epoch != q.server.epoch {
		return nil
	}
	l.started, l.exited = q.started, q.exited
	switch {
	case l.PTY:
		return q.startPTY(l)
	case l.Spool > 0:
		return q.startSpooled(l)
	}
	pid, serr := q.procs.start(l)
	if serr != nil {
		return q.failStart(l, serr)
	}
	return q.answerStart(q.ok().Uint(uint64(pid))) // the exit may have been told before
}

// answerStart answers that a command was started. Where the handle doesn't read, and so this goroutine doesn't come to
// reap, another does.
func (q *request) answerStart(m *wire.Message, fds ...int) error {
	err := q.w.TrySend(m.Bytes(), fds...)
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	go q.procs.reap()
	return q.send(m, fds...)
}

// stdio gives a command the descriptors that were sent for it. It is false if they aren't those announced.
func (q *request) stdio(l *launch) bool {
	fds := q.fds
	for n := range l.stdio {
		switch {
		case l.Stdio&(wire.StdioClosed<<n) != 0:
			l.stdio[n] = -1
		case l.Stdio&(1<<n) == 0:
			l.stdio[n] = q.procs.null
		case len(fds) == 0:
			return false
		default:
			l.stdio[n], fds = fds[0], fds[1:]
		}
	}
	return len(fds) == 0
}

// resolve works out a command's user, environment, program and directory.
func (q *request) resolve(l *launch) *startError {
	env := q.settings.env
	l.cred = q.settings.cred
	if l.User != "" {
		var ok bool
		if l.cred, ok = lookupUser(l.User); !ok {
			return &startError{wire.StageUser, unix.ENOENT}
		}
		env = environ(l.cred, q.settings.own)
	}
	program, serr := lookPath(l.Path, q.settings.dir, env, l.cred)
	if serr != nil {
		return serr
	}
	named := l.Dir != ""
	if !named && l.User != "" && q.settings.atHome && isDirectory(l.cred.home) {
		l.Dir = l.cred.home
	}
	l.Path, l.Dir = program, q.abs(l.Dir)
	if !l.Inherit {
		return nil
	}
	more := slices.Clone(env)
	if named {
		more = append(more, "PWD="+path.Clean(l.Dir))
	}
	if l.PTY && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		more = append(more, "TERM="+defaultTerm)
	}
	l.Env = unique(more)
	return nil
}

// started makes a command known by the request's number.
func (q *request) started(command *command) {
	q.conn.mu.Lock()
	defer q.conn.mu.Unlock()
	q.commands[q.id] = command
}

// exited tells the handle how the request's command has ended.
func (q *request) exited(e wire.Exit) {
	q.conn.mu.Lock()
	delete(q.commands, q.id)
	q.conn.mu.Unlock()
	m := wire.New(nil, wire.OpExit, q.id)
	e.Put(m)
	if err := q.w.TrySend(m.Bytes()); errors.Is(err, unix.EAGAIN) { // a handle that doesn't read keeps nobody waiting
		go func() { _ = q.send(m) }() // it may be gone
	}
}

// failStart answers that a command was not started.
func (q *request) failStart(l launch, serr *startError) error {
	m := wire.New(nil, wire.OpReply, q.id).Uint(uint64(serr.errno)).Text(serr.stage)
	if len(l.Path) <= unix.PathMax {
		m.Text(l.Path)
	}
	return q.send(m)
}

func (q *request) signal() error {
	id, sig, group := uint32(q.r.Uint()), syscall.Signal(q.r.Uint()), q.r.Bool()
	if err := q.r.Done(); err != nil {
		return err
	}
	q.conn.mu.Lock()
	command := q.commands[id]
	q.conn.mu.Unlock()
	if command == nil {
		return q.fail(unix.ESRCH, "")
	}
	if err := q.procs.signal(command, sig, group); err != nil {
		return q.fail(errnoOf(err), "")
	}
	return q.send(q.ok())
}
