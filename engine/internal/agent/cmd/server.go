//go:build linux

package main

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/lease"
	"golang.org/x/sys/unix"
)

const (
	// maxConns is how many connections the agent serves at a time.
	maxConns = 1024
	// maxAside is how many requests that may take long a connection has under way.
	maxAside = 4096
	// maxBehind is how many requests of a connection others may have overtaken. Each has a buffer of its own.
	maxBehind = 32
)

// server answers the handles.
type server struct {
	life   *life
	procs  *procs
	spools *spools
	turns  *turns

	// gate is read-locked while a request is under way, and locked for the moment that begins a pause.
	gate  sync.RWMutex
	epoch uint8 // guarded by gate

	mu     sync.Mutex
	config *settings   // nil: fresh
	asked  wire.Config // what config is made of
	conns  map[*conn]struct{}
	fresh  int // of conns, those that have not asked for anything yet
}

// conn is a connection, which is a handle once it has asked for OpHold.
type conn struct {
	*server
	w        *wire.Conn
	settings *settings     // nil: not a handle
	aside    chan struct{} // has an element for each request under way that may take long
	known    bool          // it has asked for something
	behind   chan struct{} // has an element for each request under way that was overtaken
	soon     bool          // the last request came soon after the answer to the one before
	rest     int           // for how many requests spin isn't worth it
	under    atomic.Int64  // when the request under way began that may be overtaken; 0: none
	closed   func()        // is called at the end

	mu       sync.Mutex
	commands map[uint32]*command // by the number of the request that started them, or attached to them
	attached map[uint32]*attachment
	watches  map[uint32]*watch // by the number of their OpWatch
}

// listen accepts connections for ever.
func (s *server) listen(fd int) {
	if err := unix.SetNonblock(fd, true); err != nil {
		os.Exit(exitListen)
	}
	rc, err := os.NewFile(uintptr(fd), "listen").SyscallConn()
	if err != nil {
		os.Exit(exitListen)
	}
	conns := make(chan struct{}, maxConns)
	for {
		conns <- struct{}{}
		var nfd int
		err := rc.Read(func(fd uintptr) bool {
			nfd, _, err = unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return err != unix.EAGAIN
		})
		if err != nil {
			os.Exit(exitListen)
		}
		var w *wire.Conn
		if nfd > 0 {
			w, err = wire.NewConn(nfd)
		}
		if w == nil || err != nil { // a connection that went again, or no descriptor left
			time.Sleep(time.Millisecond)
			<-conns
			continue
		}
		go s.add(w, func() { <-conns }).serve()
	}
}

// add makes a connection of a socket, which it takes.
func (s *server) add(w *wire.Conn, closed func()) *conn {
	c := &conn{
		server:   s,
		w:        w,
		aside:    make(chan struct{}, maxAside),
		behind:   make(chan struct{}, maxBehind),
		commands: map[uint32]*command{},
		attached: map[uint32]*attachment{},
		closed:   closed,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	s.fresh++
	return c
}

// serve answers requests until the other end is gone or sends what is none, or another goroutine does it in its turn.
func (c *conn) serve() {
	buf := make([]byte, wire.MaxMessage)
	for {
		b, fds, err := c.next(buf)
		if err != nil {
			wire.CloseAll(fds)
			break
		}
		if err = c.dispatch(b, fds); err == errOvertaken {
			return
		}
		if err != nil {
			break
		}
		c.know()
	}
	c.know()
	c.close()
}

// know counts the connection as one that has asked for something.
func (c *conn) know() {
	if c.known {
		return
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.known = true
	c.fresh--
}

const (
	// spinTime is how long a request is looked for that may come soon.
	spinTime = 50 * time.Microsecond
	// soonTime is how long one may take that was waited for, for the next to be looked for. Two threads were woken meanwhile.
	soonTime = 150 * time.Microsecond
	// spinRest is for how many requests nobody looks once it was in vain.
	spinRest = 8
)

// spinning is held by the one connection that looks for a request.
var spinning sync.Mutex

// next receives a request. In a row of them it is looked for a moment before it is waited for: to wake a thread takes longer
// than most requests.
func (c *conn) next(buf []byte) (b []byte, fds []int, err error) {
	if c.soon {
		if b, fds, err = c.spin(buf); err != wire.ErrNoMessage {
			return b, fds, err
		}
		c.soon, c.rest = false, spinRest
		return c.w.Recv(buf)
	}
	answered := time.Now()
	b, fds, err = c.w.Recv(buf)
	c.rest--
	c.soon = c.rest < 0 && runtime.NumCPU() > 1 && time.Since(answered) < soonTime
	return b, fds, err
}

// spin looks for a request for a moment. One connection at a time does.
func (c *conn) spin(buf []byte) (b []byte, fds []int, err error) {
	err = wire.ErrNoMessage
	if !spinning.TryLock() {
		return nil, nil, err
	}
	defer spinning.Unlock()
	for began := time.Now(); err == wire.ErrNoMessage && time.Since(began) < spinTime; {
		b, fds, err = c.w.TryRecv(buf)
	}
	return b, fds, err
}

func (c *conn) close() {
	c.server.mu.Lock()
	delete(c.conns, c)
	c.server.mu.Unlock()
	held := c.settings != nil
	c.settings = nil
	_ = c.w.Close()
	c.detachAll()
	c.closeWatches()
	if held {
		c.life.release(func(bool) {})
	}
	c.closed()
}

// dispatch answers one request. It borrows b and takes fds. Its error means that the connection is of no use.
func (c *conn) dispatch(b []byte, fds []int) error {
	q := &request{conn: c, settings: c.settings, fds: fds}
	defer q.closeFiles()
	var err error
	if q.op, q.id, q.r, err = wire.Read(b); err != nil {
		return err
	}
	if q.op == wire.OpSpilled && len(fds) > 0 {
		last := len(fds) - 1
		if b, err = wire.Unspill(fds[last]); err != nil {
			return err
		}
		if q.op, q.id, q.r, err = wire.Read(b); err != nil || q.op == wire.OpSpilled {
			return wire.ErrMessage
		}
		_ = unix.Close(fds[last])
		q.fds = fds[:last]
	}
	q.epoch = wire.Epoch(b)
	if q.op == wire.OpPause && c.settings != nil {
		return q.pause()
	}
	c.gate.RLock()
	if err = q.answer(); err != errOvertaken {
		c.gate.RUnlock()
	}
	return err
}

// answer answers a request but that for a pause.
func (q *request) answer() error {
	switch {
	case q.op == wire.OpHold && q.settings == nil:
		return q.hold()
	case q.op == wire.OpStatus:
		return q.status()
	case q.settings == nil:
		return wire.ErrMessage
	case q.op == wire.OpResume:
		return q.resume()
	case q.epoch != q.server.epoch:
		return nil // the handle has been told that it isn't done
	}
	switch q.op {
	case wire.OpRelease:
		return q.release()
	case wire.OpKeepAlive, wire.OpExtend:
		return q.deadline()
	case wire.OpStart:
		return q.start()
	case wire.OpSignal:
		return q.signal()
	case wire.OpConnect, wire.OpListen:
		return q.socket()
	case wire.OpAttach:
		return q.attach()
	case wire.OpFollow:
		return q.follow()
	case wire.OpDetach:
		return q.detach()
	case wire.OpConfigure:
		return q.configure()
	case wire.OpOpenFiles:
		return q.limitOpenFiles()
	case wire.OpProcesses:
		return q.processes()
	case wire.OpWatch:
		return q.watch()
	default:
		return q.inTurn(q.file)
	}
}

// hold makes the connection a handle. The first brings the sandbox's configuration.
func (q *request) hold() error {
	q.server.mu.Lock()
	defer q.server.mu.Unlock()
	if q.config == nil {
		cfg := wire.ReadConfig(q.r)
		if err := q.r.Done(); err != nil {
			return err
		}
		if err := filter(cfg.Seccomp, cfg.SeccompFlags); err != nil { // before anything of the guest's is looked at
			return q.fail(errnoOf(err), wire.StageSeccomp)
		}
		// first: until now the grace time was that of a fresh sandbox
		return q.apply(cfg, func(now time.Duration, rule *lease.Lifetime) { rule.Hold(now) })
	}
	q.life.change(func(now time.Duration, rule *lease.Lifetime) { rule.Hold(now) })
	q.conn.settings = q.config
	return q.sendInfo()
}

// configure configures the sandbox again, for who claims it. What was started before stays as it is.
func (q *request) configure() error {
	cfg := wire.ReadConfig(q.r)
	if err := q.r.Done(); err != nil {
		return err
	}
	q.server.mu.Lock()
	defer q.server.mu.Unlock()
	return q.apply(cfg, func(time.Duration, *lease.Lifetime) {})
}

// apply makes cfg the sandbox's, and the handle's. The caller has server.mu.
func (q *request) apply(cfg wire.Config, first func(time.Duration, *lease.Lifetime)) error {
	settings := q.config
	if settings == nil || !cfg.StartsLike(q.asked) {
		var serr *startError
		if settings, serr = configure(cfg); serr != nil {
			return q.fail(serr.errno, serr.stage)
		}
	}
	if err := limitOpenFiles(cfg.OpenFiles); err != nil {
		return q.fail(errnoOf(err), "")
	}
	q.config, q.asked, q.conn.settings = settings, cfg, settings
	q.life.change(func(now time.Duration, rule *lease.Lifetime) {
		first(now, rule)
		rule.Grace = cfg.Grace
		rule.KeepAlive(now, cfg.KeepAlive)
	})
	return q.sendInfo()
}

func (q *request) sendInfo() error {
	m := q.ok()
	wire.Info{Dir: q.config.dir, Env: q.config.env, Epoch: q.server.epoch}.Put(m)
	return q.send(m)
}

func (q *request) status() error {
	m := q.ok()
	q.life.change(func(now time.Duration, rule *lease.Lifetime) {
		m.Uint(uint64(rule.Holders())).Uint(uint64(rule.Remaining(now)))
	})
	return q.send(m)
}

func (q *request) release() error {
	q.conn.settings = nil
	q.life.release(func(ended bool) {
		_ = q.send(q.ok().Bool(ended))
	})
	return nil
}

func (q *request) deadline() error {
	d := time.Duration(q.r.Int())
	if err := q.r.Done(); err != nil {
		return err
	}
	m := q.ok()
	q.life.change(func(now time.Duration, rule *lease.Lifetime) {
		if q.op == wire.OpExtend {
			rule.Extend(now, d)
		} else {
			rule.KeepAlive(now, d)
		}
		m.Uint(uint64(rule.Remaining(now)))
	})
	return q.send(m)
}
