// SPDX-License-Identifier: Apache-2.0

// Command writ decides what an LLM-driven service may do, and proves it
// afterwards.
//
// It runs as an agent beside a service ("writ agent"), as the collector of agents'
// records ("writ collector"), and offline for whoever writes or audits policy: "writ
// test", "writ decide", "writ tools", "writ verify". Results go
// to standard output, everything else to standard error. It exits with 0 for
// yes, 1 for no (denied, invalid, not verified), 2 when it could not tell.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/sandbox"
)

// Exit codes.
const (
	exitYes      = 0
	exitNo       = 1
	exitCantTell = 2
)

// errNo makes the program exit with 1: the answer is no, and was printed.
var errNo = errors.New("no")

// hintedError is an error with advice on how to mend it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

func hinted(err error, format string, args ...any) error {
	return &hintedError{err: err, hint: fmt.Sprintf(format, args...)}
}

func main() {
	sandbox.MaybeLaunch()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitYes
	case errors.Is(err, errNo):
		return exitNo
	default:
		fmt.Fprintf(os.Stderr, "writ: error: %v\n", err)
		var advice *hintedError
		if errors.As(err, &advice) {
			fmt.Fprintf(os.Stderr, "writ: hint: %s\n", advice.hint)
		}
		return exitCantTell
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "writ",
		Short: "Decide what an LLM-driven service may do, and prove it afterwards",
		Long: `writ decides what an LLM-driven service may do, and proves it afterwards.

Beside a service it runs as the agent, an Envoy ext_authz and ext_proc filter and a
gRPC API for planners; upstream, as the collector that verifies and keeps agents'
records. The other commands work on bundles and records.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.AddCommand(
		newAgent(),
		newAgents(),
		newApprovals(),
		newBudgets(),
		newCollector(),
		newConfig(),
		newDecide(),
		newEnvoy(),
		newExplain(),
		newKeys(),
		newLog(),
		newRecords(),
		newReplay(),
		newReviews(),
		newSandbox(),
		newStop(),
		newTest(),
		newTools(),
		newVerify(),
		newVersion(),
	)
	return root
}

// output is the form of a command's results.
type output string

const (
	outputText output = "text"
	outputJSON output = "json"
)

// String, Set and Type make output a flag's value.
func (o *output) String() string { return string(*o) }

// Set takes text or json.
func (o *output) Set(s string) error {
	switch output(s) {
	case outputText, outputJSON:
		*o = output(s)
		return nil
	default:
		return fmt.Errorf("output is text or json, not %q", s)
	}
}

// Type names the value in help texts.
func (o *output) Type() string { return "text|json" }

// addOutput adds the flag --output.
func addOutput(cmd *cobra.Command) *output {
	o := outputText
	cmd.Flags().VarP(&o, "output", "o", "form of the results")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return &o
}
