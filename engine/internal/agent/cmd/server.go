//go:build linux

package main

import (
	"os"
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
	// maxSlow is how many requests that may take long a connection has under way.
	maxSlow = 64

	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// server answers the handles.
type server struct {
	life  *life
	procs *procs

	mu     sync.Mutex
	config *settings // nil: fresh
}

// settings is what the sandbox was configured with; it doesn't change.
type settings struct {
	cred *credential
	dir  string
	env  []string // of a command of the sandbox's user
	own  []string // what of env was asked for
}

// conn is a connection, which is a handle once it has asked for OpHold.
type conn struct {
	*server
	w        *wire.Conn
	settings *settings // nil: not a handle
	slow     chan struct{}

	mu       sync.Mutex
	commands map[uint32]*command // by the number of the request that started them
	watches  map[uint32]*watch   // by the number of their OpWatch
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
			c := &conn{server: s, w: w, slow: make(chan struct{}, maxSlow), commands: map[uint32]*command{}}
			c.serve()
			<-conns
		}()
	}
}

// serve answers requests until the other end is gone or sends what is none.
func (c *conn) serve() {
	defer c.close()
	buf := make([]byte, wire.MaxMessage)
	for {
		b, fds, err := c.w.Recv(buf)
		if err != nil {
			return
		}
		err = c.dispatch(b, fds)
		wire.CloseAll(fds)
		if err != nil {
			return
		}
	}
}

func (c *conn) close() {
	held := c.settings != nil
	c.settings = nil
	_ = c.w.Close()
	c.closeWatches()
	if held {
		c.life.release(func(bool) {})
	}
}

// dispatch answers one request. It borrows b and fds. Its error means that the connection is of no use.
func (c *conn) dispatch(b []byte, fds []int) error {
	op, id, r, err := wire.Read(b)
	if err != nil {
		return err
	}
	if op == wire.OpSpilled && len(fds) > 0 {
		last := len(fds) - 1
		if b, err = wire.Unspill(fds[last]); err != nil {
			return err
		}
		if op, id, r, err = wire.Read(b); err != nil || op == wire.OpSpilled {
			return wire.ErrMessage
		}
		fds = fds[:last]
	}
	q := &request{conn: c, op: op, id: id, r: r, fds: fds}
	switch {
	case op == wire.OpHold && c.settings == nil:
		return q.hold()
	case op == wire.OpStatus:
		return q.status()
	case c.settings == nil:
		return wire.ErrMessage
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
	default:
		return q.file()
	}
}

// request is a request under way.
type request struct {
	*conn
	op  wire.Op
	id  uint32
	r   *wire.Reader
	fds []int
}

// ok begins the answer to a request that went well.
func (q *request) ok() *wire.Message {
	return wire.New(nil, wire.OpReply, q.id).Uint(0).Text("")
}

// fail answers a request that didn't go well.
func (q *request) fail(errno syscall.Errno, stage string) error {
	return q.send(wire.New(nil, wire.OpReply, q.id).Uint(uint64(errno)).Text(stage))
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
		settings, serr := configure(cfg)
		if serr != nil {
			return q.fail(serr.errno, serr.stage)
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
	wire.Info{Dir: q.config.dir, Env: q.config.env}.Put(m)
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
	files := 0
	for n := range 3 {
		files += int(cmd.Stdio >> n & 1)
	}
	if files != len(q.fds) {
		return wire.ErrMessage
	}
	cred, env := q.settings.cred, q.settings.env
	if cmd.User != "" {
		var ok bool
		if cred, ok = lookupUser(cmd.User); !ok {
			return q.fail(unix.ENOENT, wire.StageUser)
		}
		env = environ(cred, q.settings.own)
	}
	path, serr := lookPath(cmd.Path, env)
	if serr != nil {
		return q.fail(serr.errno, serr.stage)
	}
	cmd.Path = path
	dir := q.abs(cmd.Dir)
	switch {
	case !cmd.Inherit:
		env = cmd.Env
	case cmd.Dir != "":
		env = append(slices.Clip(env), "PWD="+dir)
	}
	cmd.Env, cmd.Dir = env, dir
	c, id := q.conn, q.id
	started := func(command *command) {
		c.mu.Lock()
		c.commands[id] = command
		c.mu.Unlock()
	}
	exited := func(e wire.Exit) {
		c.mu.Lock()
		delete(c.commands, id)
		c.mu.Unlock()
		m := wire.New(nil, wire.OpExit, id)
		e.Put(m)
		_ = c.w.Send(m.Bytes()) // the handle may be gone
	}
	pid, serr := q.procs.start(cmd, q.fds, cred, started, exited)
	if serr != nil {
		return q.fail(serr.errno, serr.stage)
	}
	return q.send(q.ok().Uint(uint64(pid))) // the exit may have been told before
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
	var st unix.Stat_t
	if s.dir == "" {
		s.dir = cred.home
		if unix.Stat(s.dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			s.dir = "/"
		}
		return s, nil
	}
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

// environ is env below the variables that every command gets. Of a variable that is there twice the
// last counts.
func environ(cred *credential, env []string) []string {
	all := []string{"PATH=" + defaultPath, "HOME=" + cred.home}
	if cred.name != "" {
		all = append(all, "USER="+cred.name)
	}
	all = append(all, env...)
	var out []string
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
