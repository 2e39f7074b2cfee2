// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// condition looks at the low 32 bits of one argument: every argument named in the table is an int or an
// unsigned int to the kernel, or, for clone, has all its dangerous bits there.
type condition struct {
	arg    int
	values []uint32 // one of them, if not nil
	clear  uint32   // else none of these bits
}

// oneOf holds when the argument is one of the values.
func oneOf(arg int, values ...uint32) condition { return condition{arg: arg, values: values} }

// noneOf holds when the argument has none of the bits.
func noneOf(arg int, bits uint32) condition { return condition{arg: arg, clear: bits} }

// Offsets in struct seccomp_data, linux/seccomp.h. Arguments are 64 bits, least half first on the
// little-endian machines this builds for.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// What the filter answers.
const (
	answerAllow = unix.SECCOMP_RET_ALLOW
	answerKill  = unix.SECCOMP_RET_KILL_PROCESS
	answerPerm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	answerNoSys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// filter is the compiled table, as the launcher hands it to the kernel.
var filter = sync.OnceValues(func() ([]byte, error) {
	raw, err := bpf.Assemble(assemble())
	if err != nil {
		return nil, fmt.Errorf("assembling the seccomp filter: %w", err)
	}
	out := make([]byte, 0, 8*len(raw))
	for _, in := range raw {
		out = binary.NativeEndian.AppendUint16(out, in.Op)
		out = append(out, in.Jt, in.Jf)
		out = binary.NativeEndian.AppendUint32(out, in.K)
	}
	return out, nil
})

// assemble writes the program: architecture first, then unknown numbers, then one comparison a call. The
// kernel remembers calls that are allowed whatever their arguments, so order costs little.
func assemble() []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nativeArch, SkipTrue: 1},
		bpf.RetConstant{Val: answerKill},
		bpf.LoadAbsolute{Off: offsetNr, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: newestKnown, SkipTrue: 1},
		bpf.RetConstant{Val: answerNoSys},
	}
	for _, nr := range absent {
		p = append(p,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(nr), SkipTrue: 1},
			bpf.RetConstant{Val: answerNoSys})
	}
	for _, rules := range [][]rule{allowed, legacy} {
		for _, r := range rules {
			p = append(p, r.assemble()...)
		}
	}
	return append(p, bpf.RetConstant{Val: answerPerm})
}

// assemble writes one rule: it returns from the program when the rule holds, and otherwise leaves the
// call's number loaded for the next.
func (r rule) assemble() []bpf.Instruction {
	body := []bpf.Instruction{bpf.RetConstant{Val: answerAllow}}
	if len(r.when) > 0 {
		// What a failed condition falls through to.
		body = append(body, bpf.LoadAbsolute{Off: offsetNr, Size: 4})
	}
	for i := len(r.when) - 1; i >= 0; i-- {
		body = r.when[i].guard(body)
	}
	return append([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(r.nr), SkipTrue: uint8(len(body))},
	}, body...)
}

// guard writes the condition before body, whose last instruction is where a failed condition goes.
func (c condition) guard(body []bpf.Instruction) []bpf.Instruction {
	p := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetArgs + 8*uint32(c.arg), Size: 4}}
	if c.values == nil {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: c.clear, SkipTrue: uint8(len(body) - 1)})
		return append(p, body...)
	}
	for i, v := range c.values {
		left := len(c.values) - 1 - i
		if left > 0 {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(left)})
			continue
		}
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: uint8(len(body) - 1)})
	}
	return append(p, body...)
}
