// SPDX-License-Identifier: Apache-2.0

//go:build !linux || (!amd64 && !arm64)

package sandbox

import (
	"context"
	"fmt"
	"runtime"
)

// Runner runs programs under the walls of one tier. There is none on this system.
type Runner struct{}

// MaybeLaunch returns: nothing is started as a launcher on this system.
func MaybeLaunch() {}

// Probe reports that this system gives no tier.
func Probe() Report {
	return Report{
		Arch:           runtime.GOARCH,
		UserNamespaces: "unknown",
		Reasons:        []string{"there is no sandbox for " + runtime.GOOS + "/" + runtime.GOARCH},
	}
}

// New returns ErrUnavailable.
func New(Options) (*Runner, error) {
	return nil, fmt.Errorf("%w: %s", ErrUnavailable, Probe().Reasons[0])
}

// Report is what New found.
func (r *Runner) Report() Report { return Probe() }

// Close does nothing.
func (r *Runner) Close() error { return nil }

// Run returns ErrUnavailable; nothing is started.
func (r *Runner) Run(context.Context, Spec) (Result, error) {
	return Result{ExitCode: -1}, ErrUnavailable
}
