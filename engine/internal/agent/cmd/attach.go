//go:build linux

package main

import (
	"os"
	"strconv"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

// maxAttached is how many commands a connection follows at a time that it attaches to.
const maxAttached = 1024

// startSpooled starts a command whose output is kept. Who starts it follows it.
func (q *request) startSpooled(l launch) error {
	files, err := q.viewerFiles(l.Stdio)
	if err != nil {
		return q.fail(errnoOf(err), wire.StageExec)
	}
	sp, outputs, err := q.spools.make(l)
	if err != nil {
		closeFiles(files[:])
		return q.fail(errnoOf(err), wire.StageSpool)
	}
	l.stdio[1], l.stdio[2] = int(outputs[0].Fd()), int(outputs[len(outputs)-1].Fd())
	l.started = func(c *command) {
		sp.command = c
		q.started(c)
	}
	l.exited = func(e wire.Exit) { go sp.end(e) }
	pid, serr := q.procs.start(l)
	closeFiles(outputs)
	if serr != nil {
		closeFiles(files[:])
		q.spools.release(sp)
		return q.failStart(l, serr)
	}
	sp.about = wire.Process{PID: pid, PPID: 1, Name: commOf(l.Path), Args: cut(l.Args),
		User: strconv.Itoa(int(l.cred.uid)), Start: time.Now().UnixNano()}
	q.spools.add(sp)
	a := sp.attach(q.exited)
	a.view(files)
	sp.pump()
	if !q.addAttached(q.id, a) { // the command goes on
		return nil
	}
	err = q.answerStart(q.ok().Uint(uint64(pid)))
	a.begin()
	return err
}

// addAttached makes an attachment known by its request's number. It is false, and the attachment over, if the
// connection has ended meanwhile.
func (c *conn) addAttached(id uint32, a *attachment) bool {
	c.mu.Lock()
	open := c.attached != nil
	if open {
		c.attached[id] = a
	}
	c.mu.Unlock()
	if !open {
		a.end(false)
	}
	return open
}

func (c *conn) findAttached(id uint32) *attachment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attached[id]
}

// viewerFiles gives what was sent for descriptors 1 and 2, which never block.
func (q *request) viewerFiles(stdio uint8) (files [3]*os.File, err error) {
	fds := q.fds
	for n := range files {
		if stdio&(1<<n) == 0 {
			continue
		}
		if len(fds) == 0 {
			closeFiles(files[:])
			return files, wire.ErrMessage
		}
		fd := fds[0]
		if fds = fds[1:]; n == 0 {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err == nil {
			if err = unix.SetNonblock(fd, true); err != nil {
				_ = unix.Close(fd)
			}
		}
		if err != nil {
			closeFiles(files[:])
			return [3]*os.File{}, err
		}
		files[n] = os.NewFile(uintptr(fd), "viewer")
	}
	return files, nil
}

// attach follows a command that has a spool.
func (q *request) attach() error {
	pid := int(q.r.Uint())
	if err := q.r.Done(); err != nil {
		return err
	}
	q.conn.mu.Lock()
	n := len(q.attached)
	q.conn.mu.Unlock()
	if n >= maxAttached {
		return q.fail(unix.ENOBUFS, "")
	}
	sp := q.spools.find(pid)
	if sp == nil {
		if unix.Kill(pid, 0) == nil {
			return q.fail(unix.EINVAL, "")
		}
		return q.fail(unix.ESRCH, "")
	}
	a := sp.attach(q.exited)
	q.addAttached(q.id, a)
	q.started(sp.command)
	err := q.send(q.ok().Text(sp.path).Texts(sp.about.Args))
	a.begin()
	return err
}

// follow passes the command's output on.
func (q *request) follow() error {
	id, stdio := uint32(q.r.Uint()), uint8(q.r.Uint())
	if err := q.r.Done(); err != nil {
		return err
	}
	a := q.findAttached(id)
	if a == nil || len(a.viewers) > 0 {
		return q.fail(unix.ESRCH, "")
	}
	files, err := q.viewerFiles(stdio)
	if err != nil {
		return q.fail(errnoOf(err), "")
	}
	a.view(files)
	return q.send(q.ok())
}

// detach follows a command no more.
func (q *request) detach() error {
	id, waited := uint32(q.r.Uint()), q.r.Bool()
	if err := q.r.Done(); err != nil {
		return err
	}
	q.conn.mu.Lock()
	a := q.attached[id]
	delete(q.attached, id)
	delete(q.commands, id)
	q.conn.mu.Unlock()
	if a == nil {
		return q.fail(unix.ESRCH, "")
	}
	before, since := a.end(waited)
	return q.send(q.ok().Uint(before).Uint(since))
}

// detachAll is for a connection that has ended.
func (c *conn) detachAll() {
	c.mu.Lock()
	attached := c.attached
	c.attached = nil
	c.mu.Unlock()
	for _, a := range attached {
		a.end(false)
	}
}
