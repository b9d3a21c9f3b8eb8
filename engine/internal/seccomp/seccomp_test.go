package seccomp_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// What the kernel calls architectures, and what programs return.
const (
	amd64, arm64, i386, arm = 0xc000003e, 0xc00000b7, 0x40000003, 0x40000028

	allow       = 0x7fff0000
	errno       = 0x00050000
	killThread  = 0
	killProcess = 0x80000000
	trap        = 0x00030000
	logged      = 0x7ffc0000

	eperm, einval, enosys, eprotonosupport, eafnosupport = errno | 1, errno | 22, errno | 38, errno | 93, errno | 97
)

// call is a system call as a program sees it.
type call struct {
	arch, nr uint32
	args     [6]uint64
}

func with(arch, nr uint32, args ...uint64) call {
	c := call{arch: arch, nr: nr}
	copy(c.args[:], args)
	return c
}

// packet is struct seccomp_data for the package's virtual machine, which reads words as networks have them.
func (c call) packet() []byte {
	b := binary.BigEndian.AppendUint32(nil, c.nr)
	b = binary.BigEndian.AppendUint32(b, c.arch)
	b = append(b, make([]byte, 8)...) // instruction pointer
	for _, a := range c.args {
		b = binary.BigEndian.AppendUint32(b, uint32(a))
		b = binary.BigEndian.AppendUint32(b, uint32(a>>32))
	}
	return b
}

// machine compiles a profile into one that gives verdicts.
func machine(t testing.TB, p *specs.LinuxSeccomp, arch string) func(call) uint32 {
	t.Helper()
	program, err := seccomp.Compile(p, arch)
	if err != nil {
		t.Fatal(err)
	}
	code, all := bpf.Disassemble(program.Code)
	if !all {
		t.Fatal("the program has instructions that are none")
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	return func(c call) uint32 {
		n, err := vm.Run(c.packet())
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		return uint32(n)
	}
}

// parse reads a profile as users write them.
func parse(t testing.TB, text string) *specs.LinuxSeccomp {
	t.Helper()
	p := &specs.LinuxSeccomp{}
	if err := json.Unmarshal([]byte(text), p); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

func TestActions(t *testing.T) {
	const getpid, getppid = 39, 110
	tests := []struct {
		name, profile string
		want, other   uint32 // of getpid, and of getppid
	}{
		{"allow", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ALLOW"}]}`, allow, eperm},
		{"errno", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}`, errno | 5, allow},
		{"errno 0", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO","errnoRet":0}]}`, errno, allow},
		{"default errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":7,"syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO"}]}`, eperm, errno | 7},
		{"kill", `{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_KILL"}]}`, killThread, killProcess},
		{"trap and log", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_TRAP"}]}`, trap, logged},
		{"first entry", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ALLOW"},{"names":["getpid","getppid"],"action":"SCMP_ACT_TRAP"}]}`, allow, trap},
		{"no entry", `{"defaultAction":"SCMP_ACT_ALLOW"}`, allow, allow},
		{"of other architectures", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X86_64"],"syscalls":[{"names":["socketcall","getpid"],"action":"SCMP_ACT_ALLOW"}]}`, allow, eperm},
		{"allowed, and not known", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["getpid","of_tomorrow"],"action":"SCMP_ACT_ALLOW"}]}`, allow, eperm},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run := machine(t, parse(t, tt.profile), "amd64")
			if got := run(with(amd64, getpid)); got != tt.want {
				t.Errorf("getpid is %#x, want %#x", got, tt.want)
			}
			if got := run(with(amd64, getppid)); got != tt.other {
				t.Errorf("getppid is %#x, want %#x", got, tt.other)
			}
			for _, c := range []call{with(i386, getpid), with(arm64, getpid), with(0, getpid), with(amd64, 0x40000000|getpid), with(amd64, 0xffffffff)} {
				if got := run(c); got != enosys {
					t.Errorf("%#x of architecture %#x is %#x, want ENOSYS", c.nr, c.arch, got)
				}
			}
		})
	}
}

// TestConditions compares values around those that are special with what each operator means.
func TestConditions(t *testing.T) {
	const getpid = 39
	holds := map[specs.LinuxSeccompOperator]func(arg, v, two uint64) bool{
		specs.OpEqualTo:      func(a, v, _ uint64) bool { return a == v },
		specs.OpNotEqual:     func(a, v, _ uint64) bool { return a != v },
		specs.OpLessThan:     func(a, v, _ uint64) bool { return a < v },
		specs.OpLessEqual:    func(a, v, _ uint64) bool { return a <= v },
		specs.OpGreaterThan:  func(a, v, _ uint64) bool { return a > v },
		specs.OpGreaterEqual: func(a, v, _ uint64) bool { return a >= v },
		specs.OpMaskedEqual:  func(a, v, two uint64) bool { return a&v == two },
	}
	edges := []uint64{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<33 - 1, 1 << 63, 1<<64 - 2, 1<<64 - 1}
	for op, want := range holds {
		for index := range uint(6) {
			for _, v := range edges {
				two := v & 0xffff00000000ffff
				run := machine(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
					Names: []string{"getpid"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: index, Value: v, ValueTwo: two, Op: op}},
				}}}, "amd64")
				for _, arg := range append(edges, two, two|1<<20) {
					c := with(amd64, getpid, 7, 7, 7, 7, 7, 7)
					c.args[index] = arg
					if got := run(c) == allow; got != want(arg, v, two) {
						t.Errorf("%s %#x %#x of %#x: %v", op, v, two, arg, got)
					}
				}
			}
		}
	}
}

// TestAllConditions has an entry with as many conditions as there can be, and more behind it.
func TestAllConditions(t *testing.T) {
	const getpid = 39
	entry := specs.LinuxSyscall{Names: []string{"getpid"}, Action: specs.ActAllow}
	for i, op := range []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterEqual, specs.OpMaskedEqual} {
		entry.Args = append(entry.Args, specs.LinuxSeccompArg{Index: uint(i), Value: 5 << 32, Op: op})
	}
	second := specs.LinuxSyscall{Names: []string{"getpid"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 9, Op: specs.OpEqualTo}}}
	run := machine(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{entry, second}}, "amd64")
	good := with(amd64, getpid, 5<<32, 1, 1, 5<<32, 5<<32, 2<<32)
	if got := run(good); got != allow {
		t.Errorf("all hold: %#x", got)
	}
	for i, bad := range []uint64{4 << 32, 5 << 32, 5 << 32, 6 << 32, 4 << 32, 1 << 32} {
		c := good
		c.args[i] = bad
		if got := run(c); got != eperm {
			t.Errorf("all but %d hold: %#x", i, got)
		}
	}
	if got := run(with(amd64, getpid, 9)); got != trap {
		t.Errorf("the second entry: %#x", got)
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		name, profile, arch string
		entry               int
		want                string // in the text
	}{
		{"architecture", `{"defaultAction":"SCMP_ACT_ALLOW"}`, "mips", -1, "amd64 or arm64"},
		{"no action", `{}`, "amd64", -1, "defaultAction"},
		{"native missing", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"]}`, "amd64", -1, "SCMP_ARCH_X86_64 is missing"},
		{"listener", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}`, "amd64", -1, "leave it empty"},
		{"flag", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}`, "amd64", -1, "leave it out"},
		{"notify", `{"defaultAction":"SCMP_ACT_NOTIFY"}`, "amd64", -1, "use SCMP_ACT_ERRNO"},
		{"errno of allow", `{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`, "amd64", -1, "has an errno"},
		{"errno too large", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4096}]}`, "amd64", 0, "4096"},
		{"no names", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},{"action":"SCMP_ACT_ALLOW"}]}`, "amd64", 1, "name system calls"},
		{"denied, and not known", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["ptrase"],"action":"SCMP_ACT_ERRNO"}]}`, "amd64", 0, `"ptrase"`},
		{"no action of an entry", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"]}]}`, "arm64", 0, "no action"},
		{"argument", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}`, "amd64", 0, "0 to 5"},
		{"argument twice", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}`, "amd64", 0, "an entry for each"},
		{"operator", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":1,"op":"EQ"}]}]}`, "amd64", 0, "SCMP_CMP_EQ"},
		{"mask", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":1,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}]}]}`, "amd64", 0, "never holds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := seccomp.Compile(parse(t, tt.profile), tt.arch)
			var serr *seccomp.Error
			if !errors.As(err, &serr) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if serr.Entry != tt.entry || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q of entry %d, want %q of entry %d", err, serr.Entry, tt.want, tt.entry)
			}
		})
	}
	if _, err := seccomp.Compile(nil, "amd64"); err == nil {
		t.Error("no profile is no error")
	}
}

// TestTooLarge asks for more than the kernel takes.
func TestTooLarge(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for v := range uint64(2000) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Value: v, Op: specs.OpEqualTo}}})
	}
	var serr *seccomp.Error
	if _, err := seccomp.Compile(p, "amd64"); !errors.As(err, &serr) {
		t.Errorf("got %v, want an *Error", err)
	}
	p.Syscalls = p.Syscalls[:500] // which is more than a condition can jump over
	run := machine(t, p, "amd64")
	for _, c := range []struct {
		c    call
		want uint32
	}{{with(amd64, 0, 499), allow}, {with(amd64, 0, 500), eperm}, {with(amd64, 1), eperm}, {with(amd64, 9999), enosys}} {
		if got := run(c.c); got != c.want {
			t.Errorf("%+v: %#x, want %#x", c.c, got, c.want)
		}
	}
}

func TestBytes(t *testing.T) {
	p, err := seccomp.Compile(parse(t, `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_TSYNC"]}`), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	// A load of the word at 4, and a comparison with AUDIT_ARCH_X86_64, see linux/filter.h.
	want := "\x20\x00\x00\x00\x04\x00\x00\x00" + "\x15\x00\x01\x00\x3e\x00\x00\xc0"
	if got := string(p.Bytes()); !strings.HasPrefix(got, want) || len(got) != 8*len(p.Code) {
		t.Errorf("got %q, want %q and so on", got, want)
	}
	if p.Flags != 2 {
		t.Errorf("flags are %#x, want LOG's", p.Flags)
	}
}
