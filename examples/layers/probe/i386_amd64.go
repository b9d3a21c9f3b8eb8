//go:build linux

package main

// getpid386 makes a system call in the way of 32-bit programs; negative: an errno.
func getpid386() int32
