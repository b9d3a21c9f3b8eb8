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
		wire.CloseAll(rep.fds)
		return nil, errReply
	}
	f := os.NewFile(uintptr(rep.fds[0]), name)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() && !fi.IsDir() {
		err = errReply
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// ReadDir lists entries of an open directory for fsapi.
func (c *Client) ReadDir(dir *os.File) (list []fsapi.Entry, err error) {
	_, rep, err := c.callWith(dir, wire.OpReadDir)
	if err != nil {
		return nil, fileError(err)
	}
	wire.CloseAll(rep.fds)
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
func (c *Client) callWith(f *os.File, op wire.Op) (id uint32, rep reply, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, reply{}, err
	}
	cerr := rc.Control(func(fd uintptr) {
		id, rep, err = c.call(context.Background(), op, nil, nil, int(fd))
	})
	if cerr != nil {
		return 0, reply{}, os.ErrClosed
	}
	return id, rep, err
}

// Fstat describes an open file for fsapi.
func (c *Client) Fstat(f *os.File) (fsapi.Stat, error) {
	_, rep, err := c.callWith(f, wire.OpFstat)
	return readStat(rep, err)
}

// Stat describes a file for fsapi.
func (c *Client) Stat(name string) (fsapi.Stat, error) { return c.stat(name, false) }

// Lstat describes a file, or a link itself, for fsapi.
func (c *Client) Lstat(name string) (fsapi.Stat, error) { return c.stat(name, true) }

func (c *Client) stat(name string, nofollow bool) (fsapi.Stat, error) {
	_, rep, err := c.call(context.Background(), wire.OpStat, nil, func(m *wire.Message) { m.Text(name).Bool(nofollow) })
	return readStat(rep, err)
}

func readStat(rep reply, err error) (fsapi.Stat, error) {
	if err != nil {
		return fsapi.Stat{}, fileError(err)
	}
	wire.CloseAll(rep.fds)
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

// fileError is the errno that the agent answered, or err.
func fileError(err error) error {
	if e, ok := err.(*Error); ok {
		return e.Errno
	}
	return err
}
