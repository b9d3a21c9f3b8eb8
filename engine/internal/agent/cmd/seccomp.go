//go:build linux

package main

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filter has the kernel run a program at each system call of the agent's threads, those to come and all that they
// start, see seccomp(2). An empty one is none.
func filter(program string, flags uint32) error {
	const size = 8 // of struct sock_filter
	if program == "" {
		return nil
	}
	if len(program)%size != 0 || len(program)/size > 4096 {
		return unix.EINVAL
	}
	code := make([]unix.SockFilter, 0, len(program)/size)
	for b := []byte(program); len(b) > 0; b = b[size:] {
		code = append(code, unix.SockFilter{
			Code: binary.LittleEndian.Uint16(b),
			Jt:   b[2],
			Jf:   b[3],
			K:    binary.LittleEndian.Uint32(b[4:]),
		})
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	flags |= unix.SECCOMP_FILTER_FLAG_TSYNC
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(code)
	switch {
	case errno != 0:
		return errno
	case thread != 0: // one that has another filter
		return unix.EBUSY
	}
	return nil
}
