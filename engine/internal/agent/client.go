// Package agent is the host's side of the agent, the program that is PID 1 of each sandbox: its client,
// and with agentbin its embedded binary. The program itself is in cmd.
package agent

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// Socket is the name of the agent's socket in a sandbox's directory.
const Socket = "agent.sock"

var (
	// ErrGone means that the agent has ended, and the sandbox with it.
	ErrGone = errors.New("sandbox has ended")
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("handle or engine is closed")
	// ErrPaused means that the sandbox is paused, and that what was asked for was not done.
	ErrPaused = errors.New("sandbox is paused")
	// errReply means that the agent answered what it may not.
	errReply = errors.New("agent sent a malformed reply")
)

// Error is an error that the agent answers.
type Error struct {
	Stage string // one of package wire's, or empty
	Errno syscall.Errno
	Path  string // of the program that wasn't started; empty: as it was asked for
}

func (e *Error) Error() string {
	if e.Stage == "" {
		return e.Errno.Error()
	}
	return e.Stage + ": " + e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// Client is a connection to an agent. It is safe for concurrent use. It is fsapi.Agent for the
// sandbox's files.
type Client struct {
	conn *wire.Conn
	read chan struct{} // closed when the reader has stopped
	rest atomic.Int32  // for how many calls spin isn't worth it

	taking chan struct{} // has an element while somebody receives a message and hands it out, before mu
	buf    []byte        // that of a message

	discardMu sync.Mutex
	discards  []int // to be closed; not nil while somebody does

	mu      sync.Mutex
	next    uint32
	calls   map[uint32]call
	exits   map[uint32]chan<- wire.Exit
	failure error // once set, nothing works any more
	paused  bool
	epoch   uint8
	unstick func() // see OnStuck; nil: nothing
}

// call is a request that waits for its answer.
type call struct {
	op    wire.Op
	reply chan reply // with room for one
}

type reply struct {
	r   *wire.Reader
	fds []int
	err error
}

// Dial connects to the agent whose socket is in dir. The connection counts for nothing until Hold.
// syscall.ECONNREFUSED and fs.ErrNotExist mean that there is no agent any more.
func Dial(dir *os.File) (*Client, error) {
	conn, err := wire.Dial(dir, Socket)
	if err != nil {
		return nil, err
	}
	c := &Client{
		conn:   conn,
		read:   make(chan struct{}),
		taking: make(chan struct{}, 1),
		buf:    make([]byte, wire.MaxMessage),
		calls:  map[uint32]call{},
		exits:  map[uint32]chan<- wire.Exit{},
	}
	go c.receive()
	return c, nil
}

// Gone is closed when the connection has ended, by either side.
func (c *Client) Gone() <-chan struct{} { return c.read }

// Err is why the connection has ended; nil if it hasn't.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// Close ends the connection. What uses it, now or later, gets the error reason.
func (c *Client) Close(reason error) {
	c.fail(reason, true)
	_ = c.conn.Close() // which the reader may have done
	<-c.read
}

// fail ends every call under way. The first error stays unless another has to be the last.
func (c *Client) fail(err error, last bool) {
	c.mu.Lock()
	if c.failure == nil || last {
		c.failure = err
	}
	err = c.failure
	calls, exits := c.calls, c.exits
	c.calls, c.exits = nil, nil
	c.mu.Unlock()
	for _, call := range calls {
		call.reply <- reply{err: err}
	}
	for _, ch := range exits {
		close(ch)
	}
}

// receive hands out what the agent sends until it sends nothing more, or nonsense.
func (c *Client) receive() {
	defer close(c.read)
	for {
		var b []byte
		var fds []int
		err := c.conn.Await(func() (err error) {
			c.taking <- struct{}{}
			if b, fds, err = c.conn.TryRecv(c.buf); err != nil {
				c.discard(fds)
				<-c.taking
			}
			return err
		})
		if err == nil {
			err = c.deliver(b, fds)
			<-c.taking
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

// take hands out one message, if there is one and nobody else does.
func (c *Client) take() error {
	select {
	case c.taking <- struct{}{}:
		defer func() { <-c.taking }()
		return c.takeNext()
	default:
		return wire.ErrNoMessage
	}
}

// takeNext hands out one message, if there is one. The caller has taking.
func (c *Client) takeNext() error {
	b, fds, err := c.conn.TryRecv(c.buf)
	if err != nil {
		c.discard(fds)
		return err
	}
	return c.deliver(b, fds)
}

// end ends the connection for an error of take's.
func (c *Client) end(err error) {
	if !errors.Is(err, wire.ErrMessage) {
		err = ErrGone
	}
	c.fail(err, false)
	_ = c.conn.Close()
}

const (
	// spinTime is how long spin looks for an answer. Most come within half of it.
	spinTime = 100 * time.Microsecond
	// spinRest is for how many calls it doesn't, once it was in vain.
	spinRest = 8
)

// spinning is true while somebody in this program spins.
var spinning atomic.Bool

// spin looks for the answer to a call for a moment, instead of waiting for it: to wake a thread takes longer than most
// answers, where the processor sleeps meanwhile. One at a time does, and nobody where the agent has no other processor.
func (c *Client) spin(answer <-chan reply) {
	if runtime.NumCPU() == 1 || c.rest.Add(-1) >= 0 || !spinning.CompareAndSwap(false, true) {
		return
	}
	defer spinning.Store(false)
	c.rest.Store(0)
	for began := time.Now(); time.Since(began) < spinTime; {
		if len(answer) > 0 {
			return
		}
		if err := c.take(); err != nil && err != wire.ErrNoMessage {
			c.end(err)
			return
		}
	}
	c.rest.Store(spinRest)
}

// deliver hands on one message. It takes fds.
func (c *Client) deliver(b []byte, fds []int) error {
	op, id, r, err := wire.Read(b)
	if c.tooManyDiscards() {
		err = wire.ErrMessage
	}
	if err == nil && op == wire.OpReply {
		return c.deliverReply(id, r, fds)
	}
	if len(fds) > 0 {
		c.discard(fds)
		return wire.ErrMessage
	}
	if err != nil {
		return err
	}
	switch op {
	case wire.OpExit:
		return c.deliverExit(id, r)
	case wire.OpPaused:
		c.SetPaused()
		return r.Done()
	case wire.OpResumed:
		epoch := uint8(r.Uint())
		c.mu.Lock()
		defer c.mu.Unlock()
		c.resumedLocked(epoch)
		return r.Done()
	default:
		return wire.ErrMessage
	}
}

func (c *Client) deliverReply(id uint32, r *wire.Reader, fds []int) error {
	errno, stage := r.Uint(), r.Text()
	if err := r.Err(); err != nil {
		c.discard(fds)
		return err
	}
	rep := reply{r: wire.Clone(r), fds: fds}
	if errno != 0 {
		c.discard(fds)
		aerr := &Error{Stage: stage, Errno: syscall.Errno(errno)}
		if rep.r.More() {
			aerr.Path = rep.r.Text()
		}
		rep = reply{err: aerr}
	}
	c.mu.Lock()
	call, ok := c.calls[id]
	delete(c.calls, id)
	if !ok { // given up, or never asked
		c.mu.Unlock()
		c.discard(rep.fds)
		return nil
	}
	defer c.mu.Unlock() // who forgets a call has then either prevented its reply or got it
	if call.op == wire.OpHold && rep.err == nil {
		c.resumedLocked(wire.ReadInfo(wire.Clone(rep.r)).Epoch)
	}
	call.reply <- rep
	return nil
}

func (c *Client) deliverExit(id uint32, r *wire.Reader) error {
	exit := wire.ReadExit(r)
	if err := r.Done(); err != nil {
		return err
	}
	c.mu.Lock()
	ch := c.exits[id]
	delete(c.exits, id)
	c.mu.Unlock()
	if ch != nil {
		ch <- exit
		close(ch)
	}
	return nil
}

// SetPaused has every request fail with ErrPaused, also those under way, until the agent says that the sandbox
// was resumed. The agent does none of them, but goes on with what takes long and it has begun.
func (c *Client) SetPaused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = true
	for id, call := range c.calls {
		if !whilePaused(call.op) {
			delete(c.calls, id)
			delete(c.exits, id)
			call.reply <- reply{err: ErrPaused}
		}
	}
}

// whilePaused tells which requests begin and end a pause, or wait for its end.
func whilePaused(op wire.Op) bool {
	return op == wire.OpHold || op == wire.OpPause || op == wire.OpResume
}

func (c *Client) resumedLocked(epoch uint8) { c.paused, c.epoch = false, epoch }

// call makes a request and waits for its answer. It borrows the descriptors fds. exit, if any, is
// sent to once, or closed, when the started command has ended.
func (c *Client) call(ctx context.Context, op wire.Op, exit chan<- wire.Exit, put func(*wire.Message), fds ...int) (uint32, reply, error) {
	id, ch, err := c.request(ctx, op, exit, put, fds...)
	if err != nil {
		return 0, reply{}, err
	}
	c.spin(ch)
	select {
	case rep := <-ch:
		if rep.err != nil {
			c.forget(id)
		}
		return id, rep, rep.err
	case <-ctx.Done():
		c.giveUp(id, ch)
		return id, reply{}, context.Cause(ctx)
	}
}

// giveUp forgets a request, and its answer if that has come.
func (c *Client) giveUp(id uint32, answer <-chan reply) {
	c.forget(id)
	select {
	case rep := <-answer:
		c.discard(rep.fds)
	default:
	}
}

// request makes a request, and gives where its answer comes.
func (c *Client) request(ctx context.Context, op wire.Op, exit chan<- wire.Exit, put func(*wire.Message), fds ...int) (uint32, <-chan reply, error) {
	ch := make(chan reply, 1)
	c.drain(ctx)
	err := c.lock(whilePaused(op))
	if err != nil {
		c.mu.Unlock()
		return 0, nil, err
	}
	c.next++
	id := c.next
	c.calls[id] = call{op, ch}
	if exit != nil {
		c.exits[id] = exit
	}
	m := wire.New(nil, op, id).In(c.epoch)
	c.mu.Unlock()

	if put != nil {
		put(m)
	}
	if err := c.send(ctx, id, m, fds); err != nil {
		c.giveUp(id, ch)
		return 0, nil, err
	}
	return id, ch, nil
}

// lock takes mu, and gives why no request can be made.
func (c *Client) lock(whilePaused bool) error {
	c.mu.Lock()
	if c.failure == nil && c.paused && !whilePaused {
		return ErrPaused
	}
	return c.failure
}

// drainTime bounds how long drain does so.
const drainTime = time.Millisecond

// drain hands out what has come. Another handle may have paused and resumed the sandbox: the agent doesn't do what is sent
// without knowing.
func (c *Client) drain(ctx context.Context) {
	select {
	case c.taking <- struct{}{}:
	case <-ctx.Done():
		return
	}
	err := c.takeNext()
	for began := time.Now(); err == nil && time.Since(began) < drainTime; {
		err = c.takeNext()
	}
	<-c.taking
	if err != nil && err != wire.ErrNoMessage {
		c.end(err)
	}
}

// post makes a small request whose answer nobody waits for, nor that an agent takes it which is slow to read.
func (c *Client) post(op wire.Op, put func(*wire.Message)) error {
	for began := time.Now(); time.Since(began) < drainTime; { // as drain, but for who else is about to
		if err := c.take(); err != nil {
			break
		}
	}
	err := c.lock(false)
	c.next++
	id := c.next
	m := wire.New(nil, op, id).In(c.epoch)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	put(m)
	if err := c.conn.TrySend(m.Bytes()); !errors.Is(err, syscall.EAGAIN) {
		return err
	}
	go func() { _ = c.conn.Send(m.Bytes()) }() // ends with the connection at the latest
	return nil
}

// send sends a request. An agent that takes none keeps it waiting until ctx is done.
func (c *Client) send(ctx context.Context, id uint32, m *wire.Message, fds []int) error {
	b := m.Bytes()
	if len(b) > wire.MaxMessage {
		f, err := wire.Spill(b)
		if err != nil {
			return err
		}
		defer f.Close()
		b, fds = wire.New(nil, wire.OpSpilled, id).Bytes(), append(fds, int(f.Fd()))
	}
	err := c.conn.SendContext(ctx, b, fds...)
	if err == nil || errors.Is(err, wire.ErrMessage) || ctx.Err() != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return c.failure
	}
	return ErrGone
}

func (c *Client) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
	delete(c.exits, id)
}

// simple is call for an answer without descriptors, which read takes apart.
func (c *Client) simple(ctx context.Context, op wire.Op, put func(*wire.Message), read func(*wire.Reader), fds ...int) error {
	_, rep, err := c.call(ctx, op, nil, put, fds...)
	if err != nil {
		return err
	}
	c.discard(rep.fds)
	if read != nil {
		read(rep.r)
	}
	if rep.r.Done() != nil {
		return errReply
	}
	return nil
}
