//go:build linux

package main

import (
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
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

	// defaultTerm is the kind of terminal that a host's most likely is.
	defaultTerm = "xterm-256color"

	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// server answers the handles.
type server struct {
	life   *life
	procs  *procs
	spools *spools

	// gate is read-locked while a request is under way, and locked for the moment that begins a pause.
	gate  sync.RWMutex
	epoch uint8 // guarded by gate

	mu     sync.Mutex
	config *settings // nil: fresh
	conns  map[*conn]struct{}
	fresh  int // of conns, those that have not asked for anything yet
}

// settings is what the sandbox was configured with; it doesn't change.
type settings struct {
	cred *credential
	dir  string
	// atHome is true if dir wasn't asked for, and is the user's home.
	atHome bool
	env    []string // of a command of the sandbox's user
	own    []string // what of env was asked for
}

// conn is a connection, which is a handle once it has asked for OpHold.
type conn struct {
	*server
	w        *wire.Conn
	settings *settings     // nil: not a handle
	aside    chan struct{} // has an element for each request under way that may take long

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
		go func() {
			s.add(w).serve()
			<-conns
		}()
	}
}

// add makes a connection of a socket, which it takes.
func (s *server) add(w *wire.Conn) *conn {
	c := &conn{
		server:   s,
		w:        w,
		aside:    make(chan struct{}, maxAside),
		commands: map[uint32]*command{},
		attached: map[uint32]*attachment{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	s.fresh++
	return c
}

// serve answers requests until the other end is gone or sends what is none.
func (c *conn) serve() {
	defer c.close()
	known := sync.OnceFunc(func() {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		c.fresh--
	})
	defer known()
	buf := make([]byte, wire.MaxMessage)
	for {
		b, fds, err := c.w.Recv(buf)
		if err != nil {
			return
		}
		if c.dispatch(b, fds) != nil {
			return
		}
		known()
	}
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
}

// dispatch answers one request. It borrows b and takes fds. Its error means that the connection is of no use.
func (c *conn) dispatch(b []byte, fds []int) error {
	q := &request{conn: c, fds: fds}
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
	op := q.op
	if op == wire.OpPause && c.settings != nil {
		return q.pause()
	}
	c.gate.RLock()
	defer c.gate.RUnlock()
	switch {
	case op == wire.OpHold && c.settings == nil:
		return q.hold()
	case op == wire.OpStatus:
		return q.status()
	case c.settings == nil:
		return wire.ErrMessage
	case op == wire.OpResume:
		return q.resume()
	case q.epoch != c.server.epoch:
		return nil // the handle has been told that it isn't done
	}
	switch op {
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
	case wire.OpOpenFiles:
		return q.limitOpenFiles()
	case wire.OpProcesses:
		return q.processes()
	default:
		return q.file()
	}
}

// request is a request under way.
type request struct {
	*conn
	op    wire.Op
	id    uint32
	epoch uint8
	r     *wire.Reader
	fds   []int // the request's; nil: handed on
}

func (q *request) closeFiles() {
	wire.CloseAll(q.fds)
	q.fds = nil
}

// slow answers a request aside, for it may take long. f gets the request, of which all is read.
func (q *request) slow(f func(*request) error) error {
	select {
	case q.aside <- struct{}{}:
	default:
		return q.fail(unix.EAGAIN, "")
	}
	later := *q
	q.fds = nil
	go func() {
		defer func() { <-later.aside }()
		defer later.closeFiles()
		_ = f(&later) // the handle may be gone
	}()
	return nil
}

// ok begins the answer to a request that went well.
func (q *request) ok() *wire.Message {
	return wire.New(nil, wire.OpReply, q.id).Uint(0).Text("")
}

// fail answers a request that didn't go well.
func (q *request) fail(errno syscall.Errno, stage string) error {
	return q.send(wire.New(nil, wire.OpReply, q.id).Uint(uint64(errno)).Text(stage))
}

// failStart answers that a command was not started.
func (q *request) failStart(l launch, serr *startError) error {
	m := wire.New(nil, wire.OpReply, q.id).Uint(uint64(serr.errno)).Text(serr.stage)
	if len(l.Path) <= unix.PathMax {
		m.Text(l.Path)
	}
	return q.send(m)
}

func (q *request) send(m *wire.Message, fds ...int) error {
	return q.w.Send(m.Bytes(), fds...)
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
		settings, serr := configure(cfg)
		if serr != nil {
			return q.fail(serr.errno, serr.stage)
		}
		if err := limitOpenFiles(cfg.OpenFiles); err != nil {
			return q.fail(errnoOf(err), "")
		}
		q.config = settings
		q.life.change(func(now time.Duration, rule *lease.Lifetime) {
			rule.Hold(now) // first: until now the grace time was that of a fresh sandbox
			rule.Grace = cfg.Grace
			rule.KeepAlive(now, cfg.KeepAlive)
		})
	} else {
		q.life.change(func(now time.Duration, rule *lease.Lifetime) { rule.Hold(now) })
	}
	q.settings = q.config
	m := q.ok()
	wire.Info{Dir: q.config.dir, Env: q.config.env, Epoch: q.server.epoch}.Put(m)
	return q.send(m)
}

func (q *request) status() error {
	m := q.ok()
	q.life.change(func(now time.Duration, rule *lease.Lifetime) {
		m.Uint(uint64(rule.Holders())).Uint(uint64(rule.Remaining(now))).Uint(uint64(rule.Grace))
	})
	return q.send(m)
}

func (q *request) release() error {
	q.settings = nil
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
	return q.slow(func(q *request) error { return q.launch(l) })
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
	return q.send(q.ok().Uint(uint64(pid))) // the exit may have been told before
}

// stdio gives a command the descriptors that were sent for it. It is false if they aren't those announced.
func (q *request) stdio(l *launch) bool {
	fds := q.fds
	for n := range l.stdio {
		switch {
		case l.Stdio&(wire.StdioClosed<<n) != 0:
			l.stdio[n] = -1
		case l.Stdio&(1<<n) == 0:
			l.stdio[n] = int(q.procs.null.Fd())
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
	_ = q.send(m) // the handle may be gone
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

// abs is name as an absolute one; the kernel resolves the rest.
func (q *request) abs(name string) string {
	switch {
	case name == "":
		return q.settings.dir
	case name[0] == '/':
		return name
	default:
		return q.settings.dir + "/" + name
	}
}

// configure works out what the sandbox's commands start with. A working directory that isn't there is
// made, for the user.
func configure(cfg wire.Config) (*settings, *startError) {
	cred, ok := lookupUser(cfg.User)
	if !ok {
		return nil, &startError{wire.StageUser, unix.ENOENT}
	}
	s := &settings{cred: cred, dir: cfg.Dir, env: environ(cred, cfg.Env), own: cfg.Env}
	if s.dir == "" {
		s.dir, s.atHome = cred.home, true
		if !isDirectory(s.dir) {
			s.dir = "/"
		}
		return s, nil
	}
	var st unix.Stat_t
	err := unix.Stat(s.dir, &st)
	if err == unix.ENOENT {
		if err = os.MkdirAll(s.dir, 0o755); err == nil {
			err = os.Lchown(s.dir, int(cred.uid), int(cred.gid))
		}
	} else if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, &startError{wire.StageChdir, errnoOf(err)}
	}
	return s, nil
}

func isDirectory(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// environ is env below the variables that every command gets.
func environ(cred *credential, env []string) []string {
	all := []string{"PATH=" + defaultPath, "HOME=" + cred.home}
	if cred.name != "" {
		all = append(all, "USER="+cred.name)
	}
	return unique(append(all, env...))
}

// unique drops all but the last value of each variable.
func unique(all []string) (out []string) {
	for i, kv := range all {
		key, _, _ := strings.Cut(kv, "=")
		last := true
		for _, later := range all[i+1:] {
			if strings.HasPrefix(later, key+"=") {
				last = false
			}
		}
		if last {
			out = append(out, kv)
		}
	}
	return out
}
