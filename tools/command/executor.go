// SPDX-License-Identifier: Apache-2.0

package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/sandbox"
	"github.com/writ-dev/writ/tools"
)

// environment is all that a program finds in its own: no search path, and one
// locale and time zone, so that it behaves the same wherever the agent runs.
var environment = []string{"LC_ALL=C.UTF-8", "TZ=UTC"}

// traceContext is the variable that OpenTelemetry's convention for environments has for
// the W3C traceparent.
const traceContext = "TRACEPARENT"

// environmentOf returns what the program finds in its environment: with the trace
// context where the tool asks for it, and there is one.
func environmentOf(options *writv1.CommandExecutor, x tools.Execution) []string {
	if !options.GetTraceContext() || x.TraceParent == "" {
		return environment
	}
	return append(slices.Clone(environment), traceContext+"="+x.TraceParent)
}

// longest is the wall time of a program when the call has no deadline; the agent
// always sets one.
const longest = time.Hour

// Runner runs a program in a sandbox; [sandbox.Runner] does.
type Runner interface {
	// Run runs a program to its end.
	Run(ctx context.Context, spec sandbox.Spec) (sandbox.Result, error)
	// Report says what the system gives a sandbox.
	Report() sandbox.Report
}

// Executor runs programs. It is safe for use by several goroutines; but for the
// digests, which have a lock of their own, nothing in it changes after New.
type Executor struct {
	runner  Runner
	dir     string
	digests *digests
}

var _ tools.Executor = (*Executor)(nil)

// New returns an executor. Paths that are not absolute are relative to dir, the
// directory of the bundle.
func New(runner Runner, dir string) *Executor {
	return &Executor{runner: runner, dir: dir, digests: &digests{sum: make(map[state]string)}}
}

// Check says at load what would fail at each call: a program that is not there or
// not the one that was reviewed, an argument that stands for no field, a sandbox
// that the system does not give.
func (e *Executor) Check(tool *tools.Tool) error {
	options := tool.Options.GetCommand()
	if err := e.tierMet(options); err != nil {
		return fmt.Errorf("tool %s: %w", tool.Name, err)
	}
	if err := checkArguments(options.GetArgs(), tool.Request.Descriptor()); err != nil {
		return fmt.Errorf("tool %s: %w", tool.Name, err)
	}
	program, err := e.open(options)
	if err != nil {
		return fmt.Errorf("tool %s: %w", tool.Name, err)
	}
	if report := e.runner.Report(); report.OwnUser {
		if err := reachable(program.path, uint32(report.UID), uint32(report.GID)); err != nil {
			return fmt.Errorf("tool %s: %w", tool.Name, err)
		}
	}
	return nil
}

// Execute runs the tool's program, and returns what it wrote to standard output.
func (e *Executor) Execute(ctx context.Context, x tools.Execution) (*tools.Result, error) {
	options := x.Tool.Options.GetCommand()
	if options == nil {
		return nil, fmt.Errorf("%w: the tool is not a command", tools.ErrFailed)
	}
	if err := e.tierMet(options); err != nil {
		return nil, err
	}
	program, err := e.open(options)
	if err != nil {
		return nil, err
	}
	args, err := arguments(options.GetArgs(), x.Message)
	if err != nil {
		return nil, err
	}
	ran, err := e.runner.Run(ctx, sandbox.Spec{
		Path:     program.path,
		Args:     args,
		Env:      environmentOf(options, x),
		Stdin:    x.JSON,
		ReadOnly: options.GetReadOnly(),
		Limits:   limits(ctx, options.GetLimits()),
		Progress: lines(x.Progress),
	})
	result := &tools.Result{RequestBytes: int64(len(x.JSON)), ResponseBytes: int64(len(ran.Stdout))}
	if err := errors.Join(failure(ctx, ran, err), program.unchanged()); err != nil {
		return result, err
	}
	result.JSON = ran.Stdout
	return result, nil
}

// tierMet refuses a tool that demands more isolation than the system gives.
func (e *Executor) tierMet(options *writv1.CommandExecutor) error {
	wanted := sandbox.T1
	if tier := options.GetSandboxTier(); tier > writv1.SandboxTier_SANDBOX_TIER_T1 {
		return fmt.Errorf("%w: the tool demands %s", tools.ErrSandboxUnavailable, tier)
	}
	if given := e.runner.Report().Tier; given < wanted {
		return fmt.Errorf("%w: the system gives tier %s, the tool demands %s", tools.ErrSandboxUnavailable, given, wanted)
	}
	return nil
}

// limits are those of the tool, or else the defaults that options.proto states.
func limits(ctx context.Context, l *writv1.CommandLimits) sandbox.Limits {
	wall := longest
	if deadline, ok := ctx.Deadline(); ok {
		wall = max(time.Until(deadline), time.Millisecond)
	}
	return sandbox.Limits{
		Wall:      wall,
		CPU:       cmp.Or(l.GetCpu().AsDuration(), 10*time.Second),
		Memory:    cmp.Or(int64(l.GetMemoryBytes()), 256<<20),
		Processes: cmp.Or(int(l.GetProcesses()), 64),
		OpenFiles: cmp.Or(int(l.GetOpenFiles()), 64),
		FileSize:  cmp.Or(int64(l.GetFileBytes()), 16<<20),
		Output:    cmp.Or(int64(l.GetOutputBytes()), 1<<20),
	}
}

// lines hands on what the program reports, as valid UTF-8; it has been cut to
// sandbox.MaxProgressLine, within a character maybe.
func lines(progress func(string)) func([]byte) {
	if progress == nil {
		return nil
	}
	return func(line []byte) {
		progress(strings.ToValidUTF8(string(line), ""))
	}
}

// failure says in the words of package tools how a program failed; nil when it
// did not. What the program wrote is not in it.
func failure(ctx context.Context, ran sandbox.Result, err error) error {
	switch {
	case err == nil && ran.ExitCode == 0:
		return nil
	case err == nil && ran.Signal != "":
		return fmt.Errorf("%w: the program was ended by %s", tools.ErrFailed, ran.Signal)
	case err == nil:
		return fmt.Errorf("%w: the program ended with status %d", tools.ErrFailed, ran.ExitCode)
	case errors.Is(err, sandbox.ErrTimeout), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", tools.ErrTimeout, err)
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", tools.ErrCancelled, err)
	case errors.Is(err, sandbox.ErrUnavailable):
		return fmt.Errorf("%w: %w", tools.ErrSandboxUnavailable, err)
	case ran.Limit != sandbox.LimitNone:
		return &tools.LimitError{Limit: ran.Limit.String()}
	default:
		return fmt.Errorf("%w: %w", tools.ErrFailed, err)
	}
}
