//go:build !amd64 && linux

package main

import "syscall"

// getpid386: only amd64 has the calls of i386.
func getpid386() int32 { return -int32(syscall.ENOSYS) }
