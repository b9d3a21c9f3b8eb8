//go:build linux

// Command probe tells from within a sandbox which layers hold it. It tries what each layer refuses and prints a line
// of three columns: whether that was refused, the layer, and what was seen. What is let through changes nothing. Then
// it waits for its input to end, so that it can be looked at from outside.
//
// Its arguments are a name, by which it is found from outside, and two figures of the host: the bytes of the file system
// that the sandboxes are on, and the number of files that a process can open.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A layer is seen by trying what it refuses.
type layer struct {
	name string
	try  func() error // nil or let: it was let through
}

// let is what a try gives that was let through and has more to say.
type let string

func (l let) Error() string { return string(l) }

func main() {
	if len(os.Args) == 2 { // started by this program
		os.Exit(attempt(os.Args[1]))
	}
	for _, l := range calls {
		report("no call: "+l.name, l.try())
	}
	for _, l := range paths {
		report(l.name, l.try())
	}
	report("network: loopback alone", loopbackAlone())
	report("disk limited", diskLimited(os.Args[2]))
	report("open files limited", filesLimited(os.Args[3]))
	fmt.Println("done")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// report prints a line.
func report(name string, err error) {
	var errno syscall.Errno
	through, isLet := err.(let)
	switch {
	case err == nil, isLet:
		fmt.Printf("false\t%s\t%s\n", name, string(through))
	case errors.As(err, &errno):
		fmt.Printf("true\t%s\t%s\n", name, unix.ErrnoName(errno))
	default:
		fmt.Printf("true\t%s\t%v\n", name, err)
	}
}
