package seccomp

import (
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// Where the kernel's struct seccomp_data has its fields. The halves of an argument are as little-endian machines,
// which all that there are are, have them.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// span is the code for the numbers from one on, up to that of the next span.
type span struct {
	from uint32
	code []bpf.Instruction
}

// assemble gives the program. All code returns at its end and jumps within itself alone, so that pieces can be put
// one after the other.
func (t table) assemble(m machine) []bpf.Instruction {
	return slices.Concat([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: m.audit, SkipTrue: 1},
		bpf.RetConstant{Val: retErrno | enosys},
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}, search(t.spans(m)))
}

// spans gives the code for all numbers.
func (t table) spans(m machine) (list []span) {
	unknown := t.fallback
	if unknown&^retData == retErrno {
		unknown = retErrno | enosys
	}
	put := func(from uint32, code []bpf.Instruction) {
		switch n := len(list); {
		case n > 0 && list[n-1].from == from:
			list[n-1].code = code
		case n == 0 || !slices.Equal(list[n-1].code, code):
			list = append(list, span{from, code})
		}
	}
	put(0, give(unknown))
	for _, nr := range m.known() {
		code := t.decide(nr)
		if n := len(list); list[n-1].from == nr && n > 1 && slices.Equal(list[n-2].code, code) {
			list = list[:n-1] // the gap that was expected before nr isn't there
		}
		put(nr, code)
		put(nr+1, give(unknown))
	}
	if m.x32 {
		put(x32Bit, give(retErrno|enosys))
	}
	return list
}

// known gives the numbers of a machine's system calls, in order.
func (m machine) known() []uint32 {
	set := map[uint32]bool{}
	for _, s := range syscalls {
		if n := m.numbers(s); n >= 0 {
			set[uint32(n)] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// search finds the span of the number that was loaded, by halves.
func search(spans []span) []bpf.Instruction {
	if len(spans) == 1 {
		return spans[0].code
	}
	mid := len(spans) / 2
	below, above := search(spans[:mid]), search(spans[mid:])
	jump := []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: spans[mid].from, SkipTrue: uint8(len(below))}}
	if len(below) > 255 { // as far as a condition jumps
		jump = []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: spans[mid].from, SkipFalse: 1},
			bpf.Jump{Skip: uint32(len(below))},
		}
	}
	return slices.Concat(jump, below, above)
}

func give(ret uint32) []bpf.Instruction { return []bpf.Instruction{bpf.RetConstant{Val: ret}} }

// decide is the code for one system call.
func (t table) decide(nr uint32) []bpf.Instruction {
	var code []bpf.Instruction
	for _, r := range t.rules[nr] {
		body := give(r.ret)
		for _, c := range slices.Backward(r.conds) {
			body = slices.Concat(check(c, uint8(len(body))), body)
		}
		code = append(code, body...)
		if len(r.conds) == 0 {
			return code // which the rest doesn't come after
		}
	}
	return append(code, give(t.fallback)...)
}

// check goes on to the n instructions behind it if a condition holds, and else past them. Six conditions and what
// they lead to are far fewer than a condition can jump over.
func check(c specs.LinuxSeccompArg, n uint8) []bpf.Instruction {
	load := func(half uint32) bpf.Instruction {
		return bpf.LoadAbsolute{Off: offArgs + 8*uint32(c.Index) + 4*half, Size: 4}
	}
	low, high := uint32(c.Value), uint32(c.Value>>32)
	jump := func(cond bpf.JumpTest, v uint32, yes, no uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: cond, Val: v, SkipTrue: yes, SkipFalse: no}
	}
	const eq, gt, ge = bpf.JumpEqual, bpf.JumpGreaterThan, bpf.JumpGreaterOrEqual
	switch c.Op {
	case specs.OpMaskedEqual:
		return masked(c, load, n)
	case specs.OpEqualTo:
		return []bpf.Instruction{load(1), jump(eq, high, 0, n+2), load(0), jump(eq, low, 0, n)}
	case specs.OpNotEqual:
		return []bpf.Instruction{load(1), jump(eq, high, 0, 2), load(0), jump(eq, low, n, 0)}
	case specs.OpGreaterThan:
		return []bpf.Instruction{load(1), jump(gt, high, 3, 0), jump(eq, high, 0, n+2), load(0), jump(gt, low, 0, n)}
	case specs.OpGreaterEqual:
		return []bpf.Instruction{load(1), jump(gt, high, 3, 0), jump(eq, high, 0, n+2), load(0), jump(ge, low, 0, n)}
	case specs.OpLessThan:
		return []bpf.Instruction{load(1), jump(gt, high, n+3, 0), jump(eq, high, 0, 2), load(0), jump(ge, low, n, 0)}
	default: // specs.OpLessEqual
		return []bpf.Instruction{load(1), jump(gt, high, n+3, 0), jump(eq, high, 0, 2), load(0), jump(gt, low, n, 0)}
	}
}

// masked is check for an argument of which some bits count.
func masked(c specs.LinuxSeccompArg, load func(half uint32) bpf.Instruction, n uint8) []bpf.Instruction {
	half := func(i uint32, skip uint8) []bpf.Instruction {
		return []bpf.Instruction{
			load(i),
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(c.Value >> (32 * i))},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.ValueTwo >> (32 * i)), SkipFalse: skip},
		}
	}
	low := half(0, n)
	if c.Value>>32 == 0 {
		return low
	}
	return append(half(1, n+uint8(len(low))), low...)
}
