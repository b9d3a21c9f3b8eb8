//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// errSeen is a layer of which there is no more to say than that it is there.
var errSeen = errors.New("")

// paths are files by which the kernel tells of the host or is told what to do.
var paths = []layer{
	{"`/proc/kcore` masked", func() error { return read("/proc/kcore") }},
	{"`/proc/keys` masked", func() error { return read("/proc/keys") }},
	{"`/proc/timer_list` masked", func() error { return read("/proc/timer_list") }},
	{"`/proc/sys` not writable", func() error { return write("/proc/sys/kernel/core_pattern") }},
	{"`/proc/sysrq-trigger` not writable", func() error { return write("/proc/sysrq-trigger") }},
	{"`/sys` not writable", func() error { return write("/sys/kernel/mm/transparent_hugepage/enabled") }},
	{"root nosuid, nodev", func() error {
		var st unix.Statfs_t
		const both = unix.ST_NOSUID | unix.ST_NODEV
		if err := unix.Statfs("/", &st); err != nil || st.Flags&both != both {
			return nil
		}
		return errSeen
	}},
}

// read reads a byte.
func read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.Read(make([]byte, 1)); err == io.EOF {
		return errors.New("empty")
	}
	return err
}

// write opens a file for writing, and writes nothing.
func write(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func loopbackAlone() error {
	list, err := net.Interfaces()
	if err != nil {
		return let(err.Error())
	}
	for _, i := range list {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			return let(i.Name)
		}
	}
	return errSeen
}

// diskLimited tells whether the root is smaller than the file system that it is on. A tmpfs may be large, and what is
// in it is memory.
func diskLimited(host string) error {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return let(err.Error())
	}
	size := st.Blocks * uint64(st.Bsize)
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		return errors.New("read-only")
	case st.Type == unix.TMPFS_MAGIC:
		return let("tmpfs")
	case size >= number(host):
		return nil
	}
	return fmt.Errorf("%.1f GiB", float64(size)/(1<<30))
}

func filesLimited(host string) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Max >= number(host) {
		return nil
	}
	return fmt.Errorf("%d", l.Max)
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err) // it is what main was given
	}
	return n
}
