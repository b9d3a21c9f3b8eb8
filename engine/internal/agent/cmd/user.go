//go:build linux

package main

import (
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// credential is a user of the sandbox.
type credential struct {
	uid, gid uint32
	groups   []uint32
	name     string // empty: not in /etc/passwd
	home     string
}

func (c *credential) root() bool { return c.uid == 0 && c.gid == 0 && len(c.groups) == 0 }

// do calls f with the user's rights on files. They belong to the thread, see setfsuid(2); one that
// couldn't take back its own is left to die with the goroutine.
func (c *credential) do(f func() error) error { return c.in(busy, f) }

// slowly is do for what may take long.
func (c *credential) slowly(f func() error) error { return c.in(slow, f) }

func (c *credential) in(s slots, f func() error) error {
	if c.root() {
		return s.do(f)
	}
	return s.do(func() error { return c.onThread(f) })
}

func (c *credential) onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := c.assume()
		if err == nil {
			err = f()
		}
		if restore() == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func (c *credential) assume() error {
	if err := setThreadGroups(c.groups); err != nil {
		return err
	}
	_, _ = unix.SetfsgidRetGid(int(c.gid))
	_, _ = unix.SetfsuidRetUid(int(c.uid)) // drops the capabilities that override file permissions
	return nil
}

func restore() error {
	_, _ = unix.SetfsuidRetUid(0)
	_, _ = unix.SetfsgidRetGid(0)
	if uid, _ := unix.SetfsuidRetUid(-1); uid != 0 {
		return unix.EPERM
	}
	if err := setThreadGroups(nil); err != nil {
		return err
	}
	return undumpable() // a change of user makes the process what fs.suid_dumpable says
}

// setThreadGroups sets the groups of the calling thread alone; setgroups(2) of the C library, and of
// Go, sets them for all.
func setThreadGroups(groups []uint32) error {
	var first *uint32
	if len(groups) > 0 {
		first = &groups[0]
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(first)), 0); errno != 0 {
		return errno
	}
	return nil
}

// lookupUser resolves "name", "uid", "uid:gid", "name:group" or "" (root) by the sandbox's own
// /etc/passwd and /etc/group.
func lookupUser(spec string) (*credential, bool) {
	user, group, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	c := &credential{home: "/"}
	id, numeric := parseID(user)
	found := false
	eachLine("/etc/passwd", 7, func(f []string) bool {
		uid, ok := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok || !ok2 || f[0] != user && (!numeric || uid != id) {
			return true
		}
		c.uid, c.gid, c.name, found = uid, gid, f[0], true
		if strings.HasPrefix(f[5], "/") {
			c.home = f[5]
		}
		return false
	})
	if !found {
		if !numeric {
			return nil, false
		}
		c.uid, c.gid = id, id
		if id == 0 {
			c.name, c.home = "root", "/root"
		}
	}
	if hasGroup {
		gid, ok := lookupGroup(group)
		c.gid = gid
		return c, ok
	}
	if c.name != "" && c.uid != 0 {
		eachLine("/etc/group", 4, func(f []string) bool {
			gid, ok := parseID(f[2])
			for _, member := range strings.Split(f[3], ",") {
				if ok && member == c.name && len(c.groups) < 64 {
					c.groups = append(c.groups, gid)
				}
			}
			return true
		})
	}
	return c, true
}

func lookupGroup(group string) (gid uint32, ok bool) {
	if gid, ok = parseID(group); ok {
		return gid, true
	}
	eachLine("/etc/group", 4, func(f []string) bool {
		if f[0] == group {
			gid, ok = parseID(f[2])
		}
		return !ok
	})
	return gid, ok
}

// parseID reads a user or group id of the sandbox; 65535 are mapped.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint32(n), err == nil
}

// eachLine calls f with the fields of each line of a file such as passwd(5) until f is false. A guest
// may have written the file: what is over 1 MiB, or no file, is not read.
func eachLine(name string, fields int, f func([]string) bool) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer file.Close()
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		return
	}
	data, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if fs := strings.Split(line, ":"); len(fs) >= fields && !f(fs) {
			return
		}
	}
}
