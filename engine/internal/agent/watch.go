package agent

import (
	"context"
	"io"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/fsapi"
)

// watcher is fsapi.Watcher.
type watcher struct {
	c    *Client
	id   uint32
	conn *wire.Conn
	buf  []byte
}

// Watch begins a watch for fsapi.
func (c *Client) Watch() (fsapi.Watcher, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	id, rep, err := c.call(context.Background(), wire.OpWatch, nil, nil, int(theirs.Fd()))
	if err == nil {
		c.discard(rep.fds)
		if rep.r.Done() != nil {
			err = errReply
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fileError(err)
	}
	return &watcher{c: c, id: id, conn: conn, buf: make([]byte, wire.MaxMessage)}, nil
}

// Add adds a directory.
func (w *watcher) Add(name string, nofollow bool) (wd int32, err error) {
	err = w.c.simple(context.Background(), wire.OpWatchAdd, func(m *wire.Message) {
		m.Uint(uint64(w.id)).Text(name).Bool(nofollow)
	}, func(r *wire.Reader) { wd = int32(r.Uint()) })
	return wd, fileError(err)
}

// Remove takes a directory away.
func (w *watcher) Remove(wd int32) error {
	return w.c.names(wire.OpWatchRemove, func(m *wire.Message) { m.Uint(uint64(w.id)).Uint(uint64(wd)) })
}

// Next waits for events. What the agent sends is looked at before it is used.
func (w *watcher) Next() (list []fsapi.RawEvent, err error) {
	var b []byte
	var fds []int
	err = w.conn.Await(func() (err error) {
		b, fds, err = w.conn.TryRecv(w.buf)
		return err
	})
	w.c.discard(fds)
	if err == io.EOF {
		return nil, w.ended()
	}
	if err != nil {
		return nil, err
	}
	if len(fds) > 0 {
		return nil, errReply
	}
	op, _, r, err := wire.Read(b)
	if err != nil || op != wire.OpWatch {
		return nil, errReply
	}
	for r.More() {
		e := wire.ReadWatchEvent(r)
		if e.Name != "" && !validEntry(e.Name) {
			return nil, errReply
		}
		list = append(list, fsapi.RawEvent(e))
	}
	if r.Err() != nil {
		return nil, errReply
	}
	return list, nil
}

// ended is why the agent has closed its end: it, or the handle, is about to be gone.
func (w *watcher) ended() error {
	select {
	case <-w.c.Gone():
		return w.c.Err()
	case <-time.After(time.Second):
		return errReply
	}
}

// Close ends the watch; a Next that waits returns.
func (w *watcher) Close() error { return w.conn.Close() }
