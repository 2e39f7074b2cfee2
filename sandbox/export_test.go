// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox

import "time"

// What tests look at from inside: the filter as instructions, to be run in a machine that is not the
// kernel, and the readers of /proc, whose input a program can shape.
var (
	Assemble       = assemble
	Allowed        = func() []rule { return append(append([]rule(nil), allowed...), legacy...) }
	ParseStat      = parseStat
	ParseAnonymous = parseAnonymous
)

// Number is the number of the call that a rule allows, and Conditional says whether it looks at arguments.
func (r rule) Number() int       { return int(r.nr) }
func (r rule) Conditional() bool { return len(r.when) > 0 }

// GroupOf and TimeOf are what tests read of a process's line.
func GroupOf(st procStat) int          { return st.group }
func TimeOf(st procStat) time.Duration { return st.cpu }
