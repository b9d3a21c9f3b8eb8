package agent

import (
	"context"
	"io"
	"os"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/fsapi"
)

var _ fsapi.Agent = (*Client)(nil)

// Open opens a file for fsapi. What the agent sends is looked at before it is used: it is a regular file
// or a directory, or an error.
func (c *Client) Open(name string, flags int, perm uint32) (*os.File, error) {
	_, rep, err := c.call(context.Background(), wire.OpOpen, nil, func(m *wire.Message) {
		m.Text(name).Uint(uint64(flags)).Uint(uint64(perm))
	})
	if err != nil {
		return nil, fileError(err)
	}
	wire.ReadStat(rep.r)
	if rep.r.Done() != nil || len(rep.fds) != 1 {
		c.discard(rep.fds)
		return nil, errReply
	}
	return c.received(rep, name)
}

// received makes a file of the descriptor of a reply.
func (c *Client) received(rep reply, name string) (*os.File, error) {
	f, err := received(rep.fds[0], name)
	if err != nil {
		c.discard(rep.fds)
	}
	return f, err
}

// ReadDir lists entries of an open directory for fsapi.
func (c *Client) ReadDir(dir *os.File) (list []fsapi.Entry, err error) {
	rep, err := c.callWith(dir, wire.OpReadDir, nil)
	if err != nil {
		return nil, fileError(err)
	}
	c.discard(rep.fds)
	if rep.r.Uint() == 0 {
		if rep.r.Done() != nil {
			return nil, errReply
		}
		return nil, io.EOF
	}
	for rep.r.More() {
		e := fsapi.Entry{Name: rep.r.Text(), Type: uint8(rep.r.Uint())}
		if !validEntry(e.Name) {
			return nil, errReply
		}
		list = append(list, e)
	}
	if rep.r.Err() != nil {
		return nil, errReply
	}
	return list, nil
}

// validEntry keeps what a program of the host may take for an entry of a directory from being a path.
func validEntry(name string) bool {
	if name == "" || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}

// callWith makes a request about a file that the caller has open.
func (c *Client) callWith(f *os.File, op wire.Op, put func(*wire.Message)) (rep reply, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return reply{}, err
	}
	cerr := rc.Control(func(fd uintptr) {
		_, rep, err = c.call(context.Background(), op, nil, put, int(fd))
	})
	if cerr != nil {
		return reply{}, os.ErrClosed
	}
	return rep, err
}

// Fstat describes an open file for fsapi.
func (c *Client) Fstat(f *os.File) (fsapi.Stat, error) {
	rep, err := c.callWith(f, wire.OpFstat, nil)
	return c.readStat(rep, err)
}

// Stat describes a file for fsapi.
func (c *Client) Stat(name string) (fsapi.Stat, error) { return c.stat(name, false) }

// Lstat describes a file, or a link itself, for fsapi.
func (c *Client) Lstat(name string) (fsapi.Stat, error) { return c.stat(name, true) }

func (c *Client) stat(name string, nofollow bool) (fsapi.Stat, error) {
	_, rep, err := c.call(context.Background(), wire.OpStat, nil, func(m *wire.Message) { m.Text(name).Bool(nofollow) })
	return c.readStat(rep, err)
}

func (c *Client) readStat(rep reply, err error) (fsapi.Stat, error) {
	if err != nil {
		return fsapi.Stat{}, fileError(err)
	}
	c.discard(rep.fds)
	st := fsapi.Stat(wire.ReadStat(rep.r))
	if rep.r.Done() != nil {
		return fsapi.Stat{}, errReply
	}
	return st, nil
}

// Readlink reads a link for fsapi.
func (c *Client) Readlink(name string) (target string, err error) {
	err = c.simple(context.Background(), wire.OpReadlink, func(m *wire.Message) { m.Text(name) },
		func(r *wire.Reader) { target = r.Text() })
	return target, fileError(err)
}

// names makes a request that is answered by nothing but its error.
func (c *Client) names(op wire.Op, put func(*wire.Message)) error {
	return fileError(c.simple(context.Background(), op, put, nil))
}

// Mkdir makes a directory for fsapi.
func (c *Client) Mkdir(name string, perm uint32) error {
	return c.names(wire.OpMkdir, func(m *wire.Message) { m.Text(name).Uint(uint64(perm)) })
}

// MkdirAll makes a directory and those above it for fsapi.
func (c *Client) MkdirAll(name string, perm uint32) error {
	return c.names(wire.OpMkdirAll, func(m *wire.Message) { m.Text(name).Uint(uint64(perm)) })
}

// Remove removes a file for fsapi.
func (c *Client) Remove(name string) error {
	return c.names(wire.OpRemove, func(m *wire.Message) { m.Text(name) })
}

// RemoveAll removes a tree for fsapi.
func (c *Client) RemoveAll(name string) error {
	return c.names(wire.OpRemoveAll, func(m *wire.Message) { m.Text(name) })
}

// Rename moves a file for fsapi.
func (c *Client) Rename(oldname, newname string) error {
	return c.names(wire.OpRename, func(m *wire.Message) { m.Text(oldname).Text(newname) })
}

// Symlink makes a link for fsapi.
func (c *Client) Symlink(target, name string) error {
	return c.names(wire.OpSymlink, func(m *wire.Message) { m.Text(name).Text(target) })
}

// Chmod sets a mode for fsapi.
func (c *Client) Chmod(name string, mode uint32) error {
	return c.names(wire.OpChmod, func(m *wire.Message) { m.Text(name).Uint(uint64(mode)) })
}

// Chown sets an owner for fsapi.
func (c *Client) Chown(name string, uid, gid int) error {
	return c.names(wire.OpChown, func(m *wire.Message) { m.Text(name).Int(int64(uid)).Int(int64(gid)) })
}

// Link makes a hard link for fsapi.
func (c *Client) Link(oldname, newname string) error {
	return c.names(wire.OpLink, func(m *wire.Message) { m.Text(oldname).Text(newname) })
}

// Truncate sets a size for fsapi.
func (c *Client) Truncate(name string, size int64) error {
	return c.names(wire.OpTruncate, func(m *wire.Message) { m.Text(name).Int(size) })
}

// Chtimes sets the times of attr for fsapi.
func (c *Client) Chtimes(name string, attr fsapi.Attr) error {
	return c.names(wire.OpChtimes, func(m *wire.Message) { wire.Attr(attr).Put(m.Text(name)) })
}

// SetAttr sets attr of an open file for fsapi.
func (c *Client) SetAttr(f *os.File, attr fsapi.Attr) error {
	rep, err := c.callWith(f, wire.OpSetAttr, wire.Attr(attr).Put)
	if err != nil {
		return fileError(err)
	}
	c.discard(rep.fds)
	if rep.r.Done() != nil {
		return errReply
	}
	return nil
}

// Place puts something below an open directory for fsapi.
func (c *Client) Place(dir *os.File, p fsapi.Place) (*os.File, error) {
	w := wire.Place{Name: p.Name, Kind: p.Kind, Target: p.Target, Attr: wire.Attr(p.Attr)}
	rep, err := c.callWith(dir, wire.OpPlace, w.Put)
	if e, ok := err.(*Error); ok && e.Stage == wire.StageBeneath {
		return nil, fsapi.ErrInsecurePath
	}
	if err != nil {
		return nil, fileError(err)
	}
	want := 0
	if p.Kind == wire.PlaceFile || p.Kind == wire.PlaceDir {
		want = 1
	}
	if rep.r.Done() != nil || len(rep.fds) != want {
		c.discard(rep.fds)
		return nil, errReply
	}
	if want == 0 {
		return nil, nil
	}
	return c.received(rep, p.Name)
}

// fileError is the errno that the agent answered, or err.
func fileError(err error) error {
	if e, ok := err.(*Error); ok {
		return e.Errno
	}
	return err
}
