package fsapi

import (
	"io"
	"math"
	"os"
	"reflect"
	"syscall"

	"golang.org/x/sys/unix"
)

// copyChunk is how much is copied by one system call, in bytes.
const copyChunk = 8 << 20

// send copies from src to dst within the kernel, if both are regular files, on different file systems; what is on
// one, package os copies by copy_file_range(2), which does not do it from the host's to an overlay. It is not
// handled if nothing was copied that way, for whatever reason.
func send(dst, src any) (n int64, handled bool, err error) {
	limit := int64(math.MaxInt64)
	limited, _ := src.(*io.LimitedReader)
	if limited != nil {
		src, limit = limited.R, limited.N
		defer func() { limited.N -= n }()
	}
	withFDs(dst, src, func(to, from int) {
		if !differentDisks(to, from) {
			return
		}
		for n < limit {
			var sent int
			sent, err = unix.Sendfile(to, from, nil, int(min(limit-n, copyChunk)))
			if err == unix.EINTR {
				err = nil
				continue
			}
			n += int64(max(0, sent))
			if err != nil || sent <= 0 {
				break
			}
		}
		handled = n > 0 || limit <= 0
	})
	if !handled {
		err = nil // whoever copies now will see
	}
	return n, handled, err
}

// withFDs calls f with the descriptors of two open files, if that is what they are.
func withFDs(dst, src any, f func(to, from int)) {
	control := func(file any, f func(fd uintptr)) {
		if c := plain(file); c != nil {
			if rc, err := c.SyscallConn(); err == nil {
				_ = rc.Control(f)
			}
		}
	}
	control(dst, func(to uintptr) {
		control(src, func(from uintptr) { f(int(to), int(from)) })
	})
}

// plain is the file that file is, or nil. It may be of the type by which package os hides a method from io.Copy,
// but not another's that embeds a file: that may have a Read or Write of its own.
func plain(file any) syscall.Conn {
	switch file := file.(type) {
	case *File:
		return file.f
	case *os.File:
		return file
	case syscall.Conn:
		if reflect.TypeOf(file).PkgPath() == "os" {
			return file
		}
	}
	return nil
}

// differentDisks tells whether two descriptors are of regular files on different file systems.
func differentDisks(a, b int) bool {
	var x, y unix.Stat_t
	if unix.Fstat(a, &x) != nil || unix.Fstat(b, &y) != nil {
		return false
	}
	return x.Mode&unix.S_IFMT == unix.S_IFREG && y.Mode&unix.S_IFMT == unix.S_IFREG && x.Dev != y.Dev
}
