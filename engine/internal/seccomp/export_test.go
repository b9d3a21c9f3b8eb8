package seccomp

// Call is one of the system calls, whatever i is, with its number on an architecture, or -1.
func Call(i int, goarch string) (name string, nr int16) {
	s := syscalls[i%len(syscalls)]
	return s.name, machines[goarch].numbers(s)
}
