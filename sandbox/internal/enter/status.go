// SPDX-License-Identifier: Apache-2.0

package enter

import (
	"encoding/binary"
	"errors"
	"syscall"
)

// Step is one thing a launcher does before the program runs.
type Step byte

// The steps, in the order in which they are taken.
const (
	StepPlan Step = iota + 1
	StepCapabilities
	StepParent
	StepDir
	StepLimits
	StepNoNewPrivs
	StepLandlock
	StepExecGain
	StepDescriptors
	StepSeccomp
	StepExec
)

var stepNames = [...]string{
	StepPlan:         "reading the plan",
	StepCapabilities: "dropping capabilities",
	StepParent:       "tying its life to its parent's",
	StepDir:          "entering the working directory",
	StepLimits:       "setting resource limits",
	StepNoNewPrivs:   "setting no_new_privs",
	StepLandlock:     "enforcing Landlock",
	StepExecGain:     "refusing writable and executable memory",
	StepDescriptors:  "closing descriptors",
	StepSeccomp:      "installing the seccomp filter",
	StepExec:         "executing the program",
}

// String says what the step does.
func (s Step) String() string {
	if int(s) < len(stepNames) && stepNames[s] != "" {
		return stepNames[s]
	}
	return "a step of another version"
}

// ready is written once all walls stand, immediately before exec. A status descriptor that closes without
// it belongs to a launcher that died, never to a program that ran.
const ready = 'R'

// failure is what a launcher writes when a step failed: 'F', the step, the errno in two bytes.
func failure(s Step, errno syscall.Errno) []byte {
	return binary.LittleEndian.AppendUint16([]byte{'F', byte(s)}, uint16(errno))
}

// Failure is the step that failed, and why.
type Failure struct {
	Step  Step
	Errno syscall.Errno
}

// Error names the step and the errno.
func (f *Failure) Error() string { return f.Step.String() + ": " + f.Errno.Error() }

// Unwrap gives the errno.
func (f *Failure) Unwrap() error { return f.Errno }

// ErrDied says that a launcher ended without having executed anything and without saying why.
var ErrDied = errors.New("the launcher died before the program started")

// Started reads what came over the status descriptor until it closed: nil when the program was executed,
// else a *Failure, or ErrDied.
func Started(status []byte) error {
	if len(status) == 1 && status[0] == ready {
		return nil
	}
	if len(status) > 0 && status[0] == ready {
		status = status[1:]
	}
	if len(status) == 4 && status[0] == 'F' {
		return &Failure{Step(status[1]), syscall.Errno(binary.LittleEndian.Uint16(status[2:]))}
	}
	return ErrDied
}
