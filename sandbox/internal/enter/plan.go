// SPDX-License-Identifier: Apache-2.0

// Package enter is the child's half of the sandbox: it takes a Plan from its parent, puts every wall
// around the calling process, and becomes the program the plan names.
//
// It promises that the program starts only when every step succeeded; a step that fails is named on the
// status descriptor and the process ends. It decides nothing: which files, which system calls and which
// limits stands in the plan, the Landlock ruleset and the filter that the parent made.
//
// It imports as little as it can, because its cost is paid on every run of a tool.
package enter

import (
	"encoding/binary"
	"errors"
)

// Name is argv[0] of a process that is to enter a sandbox. It tells an agent that re-executes itself what
// it is; it is not a secret, and a process that bears it without a plan ends at once.
const Name = "writ-sandbox"

// The descriptors a launcher inherits beside its standard input, output and error.
const (
	// PlanFD reads the encoded Plan, from its beginning.
	PlanFD = 3
	// StatusFD takes the Status, and is closed by a successful exec.
	StatusFD = 4
	// RulesetFD is the Landlock ruleset to enforce.
	RulesetFD = 5
	// DirFD is the working directory.
	DirFD = 6
)

// Limit is one resource limit, set as both given values.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// Mode says what becomes of the process once the walls stand.
type Mode byte

const (
	// Exec becomes the program of the plan.
	Exec Mode = iota
	// Check tries the walls from inside and exits with 0, or with 1 and the failings on standard output.
	Check
)

// Plan says what to become, and under what. The walls themselves come as descriptors and as the filter.
type Plan struct {
	Mode Mode
	// Parent is the process that must still be the parent, or nobody is left to hold the wall clock.
	Parent int
	// RefuseExecGain forbids memory that is writable and executable (PR_SET_MDWE).
	RefuseExecGain bool
	Path           string
	Args           []string // argv, with argv[0]
	Env            []string
	// Limits are set in order; those that could starve the Go runtime belong last.
	Limits []Limit
	// Filter is an array of struct sock_filter in the byte order of the machine.
	Filter []byte
}

var errPlan = errors.New("plan is cut or not a plan")

// Encode returns the bytes that Decode reads.
func (p *Plan) Encode() []byte {
	b := make([]byte, 0, 256+len(p.Filter))
	b = append(b, byte(p.Mode), 0)
	if p.RefuseExecGain {
		b[1] = 1
	}
	b = binary.AppendUvarint(b, uint64(p.Parent))
	b = appendString(b, p.Path)
	b = appendStrings(b, p.Args)
	b = appendStrings(b, p.Env)
	b = binary.AppendUvarint(b, uint64(len(p.Limits)))
	for _, l := range p.Limits {
		b = binary.AppendUvarint(b, uint64(l.Resource))
		b = binary.AppendUvarint(b, l.Soft)
		b = binary.AppendUvarint(b, l.Hard)
	}
	return appendString(b, string(p.Filter))
}

// Decode reads a plan and refuses what is cut, too long, or followed by anything.
func Decode(b []byte) (*Plan, error) {
	r := reader{b: b}
	p := &Plan{Mode: Mode(r.byte()), RefuseExecGain: r.byte() == 1}
	p.Parent = int(r.uvarint())
	p.Path = r.string()
	p.Args = r.strings()
	p.Env = r.strings()
	for n := r.count(); n > 0 && !r.bad; n-- {
		p.Limits = append(p.Limits, Limit{int(r.uvarint()), r.uvarint(), r.uvarint()})
	}
	p.Filter = []byte(r.string())
	if r.bad || len(r.b) != 0 || p.Mode > Check {
		return nil, errPlan
	}
	return p, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, ss []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(ss)))
	for _, s := range ss {
		b = appendString(b, s)
	}
	return b
}

// reader takes values off the front of b; once bad it returns zero values only.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a length and refuses one that the rest cannot hold, each element being a byte at least.
func (r *reader) count() uint64 {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return 0
	}
	return n
}

func (r *reader) string() string {
	n := r.count()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) strings() []string {
	var ss []string
	for n := r.count(); n > 0 && !r.bad; n-- {
		ss = append(ss, r.string())
	}
	return ss
}
