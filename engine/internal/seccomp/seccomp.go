// Package seccomp compiles a seccomp profile of the OCI runtime specification into the program that the kernel
// runs for each system call, see seccomp(2), and has the profile that sandboxes get. It is pure: it neither
// installs a program nor asks the kernel anything.
//
// The program is assembled here, on golang.org/x/net/bpf alone. libseccomp is a C library. elastic/go-seccomp-bpf,
// which is in Go, compiles for the running architecture alone, gives foreign architectures the default action,
// which may be to allow, has no masked comparison with a value, and compares numbers one after the other.
//
// What the specification leaves open is decided so:
//
//   - Of the entries that name a system call the first whose arguments match decides; if none does, the default
//     action. All conditions of an entry must hold, and each is about another argument: who wants "or" writes two
//     entries.
//   - A program is for one architecture. Calls of others (i386 and x32 on amd64, arm on arm64) are ENOSYS, also if
//     the profile lists those architectures.
//   - Where the default action is an error, numbers that no system call had when this was written are ENOSYS, so
//     that programs which try newer calls fall back.
//   - A name that no architecture has is an error, unless the entry allows: then to leave it out denies more.
package seccomp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

//go:generate go run gen.go

// syscall is a system call with its numbers; -1: that architecture doesn't have it.
type syscall struct {
	name         string
	amd64, arm64 int16
}

// maxInstructions is BPF_MAXINSNS of the kernel.
const maxInstructions = 4096

// Program is what the kernel takes.
type Program struct {
	Code  []bpf.RawInstruction
	Flags uint32 // SECCOMP_FILTER_FLAG_… that the profile asks for
}

// Equal tells whether two programs are the same.
func (p Program) Equal(o Program) bool { return p.Flags == o.Flags && slices.Equal(p.Code, o.Code) }

// Bytes is Code as the kernel's struct sock_filter has it, on the architectures that there are.
func (p Program) Bytes() []byte {
	b := make([]byte, 0, 8*len(p.Code))
	for _, in := range p.Code {
		b = append(b, byte(in.Op), byte(in.Op>>8), in.Jt, in.Jf, byte(in.K), byte(in.K>>8), byte(in.K>>16), byte(in.K>>24))
	}
	return b
}

// An Error tells what is wrong with a profile.
type Error struct {
	Entry  int    // its index in Syscalls; -1: it isn't about an entry
	Field  string // the entry's, or the profile's
	Reason string // what is wrong, and what to do
}

func (e *Error) Error() string {
	if e.Entry < 0 {
		return e.Field + ": " + e.Reason
	}
	return fmt.Sprintf("syscalls[%d].%s: %s", e.Entry, e.Field, e.Reason)
}

// Compile compiles a profile for an architecture, which is called as in GOARCH. What is wrong with the profile is
// an *Error.
func Compile(profile *specs.LinuxSeccomp, goarch string) (Program, error) {
	m, ok := machines[goarch]
	if !ok {
		return Program{}, &Error{-1, "architectures", fmt.Sprintf("there are no filters for %.32q: use amd64 or arm64", goarch)}
	}
	t, err := plan(profile, m)
	if err != nil {
		return Program{}, err
	}
	code := t.assemble(m)
	if len(code) > maxInstructions {
		return Program{}, &Error{-1, "syscalls", fmt.Sprintf("%d instructions; the kernel takes %d: write fewer conditions", len(code), maxInstructions)}
	}
	raw, err := bpf.Assemble(code)
	if err != nil {
		return Program{}, fmt.Errorf("bug: assemble: %w", err)
	}
	return Program{Code: raw, Flags: t.flags}, nil
}

// machine is an architecture.
type machine struct {
	audit   uint32     // AUDIT_ARCH_… in seccomp_data
	native  specs.Arch // what a profile calls it
	x32     bool       // numbers from x32Bit on are another architecture's
	numbers func(syscall) int16
}

// x32Bit is __X32_SYSCALL_BIT.
const x32Bit = 0x40000000

var machines = map[string]machine{
	"amd64": {0xc000003e, specs.ArchX86_64, true, func(s syscall) int16 { return s.amd64 }},
	"arm64": {0xc00000b7, specs.ArchAARCH64, false, func(s syscall) int16 { return s.arm64 }},
}

// number gives a system call's number; known tells whether any architecture has it.
func (m machine) number(name string) (nr uint32, here, known bool) {
	i, known := slices.BinarySearchFunc(syscalls, name, func(s syscall, name string) int { return strings.Compare(s.name, name) })
	if !known {
		return 0, false, false
	}
	n := m.numbers(syscalls[i])
	return uint32(n), n >= 0, true
}
