package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The parts of what a program returns, SECCOMP_RET_… of the kernel.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000

	retData = 0x0000ffff
)

// Error numbers, which are the same on all architectures that there are.
const (
	eperm           = 1
	einval          = 22
	enosys          = 38
	eprotonosupport = 93
	eafnosupport    = 97

	maxErrno = 4095
)

// table is what a profile says for one architecture.
type table struct {
	rules    map[uint32][]rule // by number; the first that matches decides
	fallback uint32            // what else is returned
	flags    uint32
}

// rule returns ret if all conditions hold.
type rule struct {
	conds []specs.LinuxSeccompArg
	ret   uint32
}

// flagBits are SECCOMP_FILTER_FLAG_…; all threads get the program anyway.
var flagBits = map[specs.LinuxSeccompFlag]uint32{
	"SECCOMP_FILTER_FLAG_TSYNC":     0,
	specs.LinuxSeccompFlagLog:       1 << 1,
	specs.LinuxSeccompFlagSpecAllow: 1 << 2,
}

// plan checks a profile and sorts it by system calls.
func plan(p *specs.LinuxSeccomp, m machine) (t table, err error) {
	if err := checkHead(p, m); err != nil {
		return t, err
	}
	t.rules = map[uint32][]rule{}
	if t.fallback, err = ret(-1, "defaultAction", p.DefaultAction, p.DefaultErrnoRet); err != nil {
		return t, err
	}
	for _, f := range p.Flags {
		bit, ok := flagBits[f]
		if !ok {
			return t, &Error{-1, "flags", fmt.Sprintf("%.64q is not supported: leave it out", f)}
		}
		t.flags |= bit
	}
	for i, s := range p.Syscalls {
		if err := t.add(i, s, m); err != nil {
			return t, err
		}
	}
	return t, nil
}

// checkHead checks what a profile asks for besides actions.
func checkHead(p *specs.LinuxSeccomp, m machine) error {
	if p == nil {
		return &Error{-1, "profile", "there is none"}
	}
	if len(p.Architectures) > 0 && !slices.Contains(p.Architectures, m.native) {
		return &Error{-1, "architectures", fmt.Sprintf("%s is missing, without which no program runs: add it, or leave the list empty", m.native)}
	}
	if p.ListenerPath != "" || p.ListenerMetadata != "" {
		return &Error{-1, "listenerPath", "listeners are not supported: leave it empty"}
	}
	return nil
}

// add adds an entry.
func (t table) add(i int, s specs.LinuxSyscall, m machine) error {
	r, err := entry(i, s)
	if err != nil {
		return err
	}
	if len(s.Names) == 0 {
		return &Error{i, "names", "there are none: name system calls, or leave the entry out"}
	}
	for _, name := range s.Names {
		nr, here, known := m.number(name)
		switch {
		case here:
			t.rules[nr] = append(t.rules[nr], r)
		case known || allows(s.Action):
		default:
			return &Error{i, "names", fmt.Sprintf("no system call is called %.64q, and what it stands for would not be denied: correct it, or leave it out", name)}
		}
	}
	return nil
}

func allows(a specs.LinuxSeccompAction) bool { return a == specs.ActAllow || a == specs.ActLog }

// entry checks what an entry asks for, short of its names.
func entry(i int, s specs.LinuxSyscall) (r rule, err error) {
	if r.ret, err = ret(i, "action", s.Action, s.ErrnoRet); err != nil {
		return r, err
	}
	seen := map[uint]bool{}
	for j, c := range s.Args {
		field := fmt.Sprintf("args[%d]", j)
		switch {
		case c.Index > 5:
			return r, &Error{i, field, fmt.Sprintf("index is %d: arguments are 0 to 5", c.Index)}
		case seen[c.Index]:
			return r, &Error{i, field, fmt.Sprintf("argument %d has two conditions: write an entry for each", c.Index)}
		case !slices.Contains(operators, c.Op):
			return r, &Error{i, field, fmt.Sprintf("op is %.64q: use one of %q", c.Op, operators)}
		case c.Op == specs.OpMaskedEqual && c.ValueTwo&^c.Value != 0:
			return r, &Error{i, field, fmt.Sprintf("never holds, as valueTwo %#x has bits that value, the mask %#x, has not: correct them", c.ValueTwo, c.Value)}
		}
		seen[c.Index] = true
	}
	r.conds = s.Args
	return r, nil
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// ret is what the program returns for an action.
func ret(i int, field string, action specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	switch action {
	case specs.ActErrno:
		if errnoRet == nil {
			return retErrno | eperm, nil
		}
		if *errnoRet > maxErrno {
			return 0, &Error{i, field, fmt.Sprintf("errno %d: at most %d", *errnoRet, maxErrno)}
		}
		return retErrno | uint32(*errnoRet), nil
	case specs.ActTrace, specs.ActNotify:
		return 0, &Error{i, field, fmt.Sprintf("%s needs another process that decides, which there is not: use SCMP_ACT_ERRNO", action)}
	}
	if errnoRet != nil {
		return 0, &Error{i, field, fmt.Sprintf("%.64q has an errno: leave it out, or use SCMP_ACT_ERRNO", action)}
	}
	switch action {
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	}
	return 0, &Error{i, field, fmt.Sprintf("%.64q is no action: use SCMP_ACT_ERRNO, SCMP_ACT_ALLOW or another of the specification's", action)}
}
