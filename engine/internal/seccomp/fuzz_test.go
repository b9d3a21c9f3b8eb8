package seccomp_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// FuzzCompile checks that what any profile compiles to is what the kernel takes, and decides as the profile, read
// by the letter, does. What does not compile is an *Error.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), uint16(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, text []byte, call uint16, arg, other uint64) {
		p := &specs.LinuxSeccomp{}
		if json.Unmarshal(text, p) != nil {
			return
		}
		for arch, audit := range map[string]uint32{"amd64": amd64, "arm64": arm64} {
			program, err := seccomp.Compile(p, arch)
			if err != nil {
				var serr *seccomp.Error
				if !errors.As(err, &serr) || serr.Field == "" || serr.Reason == "" || serr.Entry < -1 || serr.Entry >= len(p.Syscalls) {
					t.Fatalf("%v is no *Error with an entry of the profile's", err)
				}
				continue
			}
			checkProgram(t, program)
			run := machine(t, p, arch)
			if got := run(with(i386, uint32(call), arg)); got != enosys {
				t.Errorf("%s: a foreign call is %#x", arch, got)
			}
			name, nr := seccomp.Call(int(call), arch)
			if nr < 0 {
				continue
			}
			c := with(audit, uint32(nr), arg, other, arg, other, arg, other)
			if got, want := run(c), decision(p, name, c.args); got != want {
				t.Errorf("%s: %s%#x is %#x, want %#x", arch, name, c.args, got, want)
			}
		}
	})
}

// checkProgram checks what seccomp_check_filter and bpf_check_classic of the kernel do.
func checkProgram(t *testing.T, p seccomp.Program) {
	t.Helper()
	if n := len(p.Code); n == 0 || n > 4096 {
		t.Fatalf("%d instructions, want 1 to BPF_MAXINSNS", n)
	}
	for i, in := range p.Code {
		left := len(p.Code) - i - 1
		switch in.Op {
		case 0x20: // BPF_LD | BPF_W | BPF_ABS
			if in.K%4 != 0 || in.K >= 64 { // of struct seccomp_data
				t.Fatalf("instruction %d loads from %d", i, in.K)
			}
		case 0x05: // BPF_JMP | BPF_JA
			if in.K >= uint32(left) {
				t.Fatalf("instruction %d jumps out", i)
			}
		case 0x15, 0x25, 0x35, 0x45: // BPF_JMP with BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, and BPF_K
			if int(in.Jt) >= left || int(in.Jf) >= left {
				t.Fatalf("instruction %d jumps out", i)
			}
		case 0x54, 0x06: // BPF_ALU | BPF_AND | BPF_K, BPF_RET | BPF_K
		default:
			t.Fatalf("instruction %d is %#x, which is none that is needed", i, in.Op)
		}
	}
	if last := p.Code[len(p.Code)-1]; last.Op != 0x06 {
		t.Fatal("the last instruction doesn't return")
	}
	if _, all := bpf.Disassemble(p.Code); !all {
		t.Fatal("an instruction is none")
	}
}

// decision reads a profile by the letter: the first entry with the name whose conditions all hold, else the default.
func decision(p *specs.LinuxSeccomp, name string, args [6]uint64) uint32 {
	for _, s := range p.Syscalls {
		for _, n := range s.Names {
			if n == name && holdAll(s.Args, args) {
				return returned(s.Action, s.ErrnoRet)
			}
		}
	}
	return returned(p.DefaultAction, p.DefaultErrnoRet)
}

func holdAll(conds []specs.LinuxSeccompArg, args [6]uint64) bool {
	for _, c := range conds {
		a := args[c.Index]
		holds := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo:      a == c.Value,
			specs.OpNotEqual:     a != c.Value,
			specs.OpLessThan:     a < c.Value,
			specs.OpLessEqual:    a <= c.Value,
			specs.OpGreaterThan:  a > c.Value,
			specs.OpGreaterEqual: a >= c.Value,
			specs.OpMaskedEqual:  a&c.Value == c.ValueTwo,
		}
		if !holds[c.Op] {
			return false
		}
	}
	return true
}

func returned(action specs.LinuxSeccompAction, errnoRet *uint) uint32 {
	switch action {
	case specs.ActAllow:
		return allow
	case specs.ActLog:
		return logged
	case specs.ActTrap:
		return trap
	case specs.ActKillProcess:
		return killProcess
	case specs.ActErrno:
		if errnoRet != nil {
			return errno | uint32(*errnoRet)
		}
		return eperm
	default:
		return killThread
	}
}
