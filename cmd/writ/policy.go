// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// load reads a bundle; its problems and warnings go to standard error.
func load(ctx context.Context, cmd *cobra.Command, dir string) (*bundles.Loaded, error) {
	loaded, err := bundles.Load(ctx, dir, bundles.Options{})
	var problems bundles.Errors
	if errors.As(err, &problems) {
		for _, problem := range problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: %v\n", problem)
		}
		return nil, errNo
	}
	if err != nil {
		return nil, err
	}
	for _, warning := range loaded.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "writ: warning: %v\n", warning)
	}
	return loaded, nil
}

func newTest() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test BUNDLE",
		Short: "Run a bundle's own test cases and scenarios",
		Long: `Test loads the bundle in the directory BUNDLE, decides every case in its tests
folder, and plays every scenario in its scenarios folder: whole sessions, with what
the user says, what the tools return and what humans approve, in YAML or as JSON
lines (.ndjson). It exits with 1 when
a call gets another decision than is wanted, or when the bundle does not load.`,
		Args: cobra.ExactArgs(1),
	}
	form := addOutput(cmd)
	junit := cmd.Flags().String("junit", "", "also write the results as JUnit XML to this file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		loaded, err := load(cmd.Context(), cmd, args[0])
		if err != nil {
			return err
		}
		report := bundles.RunTests(loaded.Bundle, loaded.Suites, time.Now)
		report.AddPlays(bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now))
		if *junit != "" {
			if err := writeFile(*junit, report.WriteJUnit); err != nil {
				return err
			}
		}
		write := report.WriteText
		if *form == outputJSON {
			write = report.WriteJSON
		}
		if err := write(cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("print the results: %w", err)
		}
		if len(report.Failed()) > 0 {
			return errNo
		}
		return nil
	}
	return cmd
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}

func newDecide() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "decide --bundle BUNDLE -f ENVELOPE",
		Short: "Decide on one call offline, and explain",
		Long: `Decide reads an envelope in JSON, decides on it under the bundle as the principal
that the flags describe, and explains every check. Nothing is recorded or run, and
no budget has anything taken. It exits with 1 unless the verdict is ALLOW.`,
		Args: cobra.NoArgs,
	}
	form := addOutput(cmd)
	dir := cmd.Flags().StringP("bundle", "b", ".", "directory of the bundle")
	file := cmd.Flags().StringP("file", "f", "-", "the envelope; - is standard input")
	principal := &writv1.Principal{}
	cmd.Flags().StringVar(&principal.User, "user", "", "the principal's user")
	cmd.Flags().StringVar(&principal.Workload, "workload", "", "the principal's SPIFFE ID")
	cmd.Flags().StringVar(&principal.Tenant, "tenant", "", "the principal's tenant")
	cmd.Flags().StringSliceVar(&principal.Roles, "role", nil, "a role of the principal; may be repeated")
	at := cmd.Flags().String("time", "", "the time of the decision, RFC 3339 (default: now)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now, err := timeOf(*at)
		if err != nil {
			return err
		}
		loaded, err := load(cmd.Context(), cmd, *dir)
		if err != nil {
			return err
		}
		data, err := readInput(cmd.InOrStdin(), *file)
		if err != nil {
			return err
		}
		envelope, err := bundles.ReadEnvelope(data)
		if err != nil {
			return hinted(fmt.Errorf("read the envelope: %w", err), "an envelope is a writ.v1.Envelope in JSON, with the arguments themselves in tool_call.args")
		}
		result := decided(loaded.Bundle, bundles.CallOf(principal, envelope), now)
		explain := policy.Explain
		if *form == outputJSON {
			explain = policy.ExplainJSON
		}
		if err := explain(cmd.OutOrStdout(), result); err != nil {
			return fmt.Errorf("print the decision: %w", err)
		}
		if result.Decision.GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
			return errNo
		}
		return nil
	}
	return cmd
}

func timeOf(text string) (time.Time, error) {
	if text == "" {
		return time.Now(), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("read --time: %w", err)
	}
	return at, nil
}

// maxEnvelope bounds an envelope's file.
const maxEnvelope = 16 << 20

func readInput(stdin io.Reader, path string) ([]byte, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the envelope: %w", err)
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, maxEnvelope+1))
	if err != nil {
		return nil, fmt.Errorf("read the envelope: %w", err)
	}
	if len(data) > maxEnvelope {
		return nil, fmt.Errorf("read the envelope: it has more than %d bytes", maxEnvelope)
	}
	return data, nil
}

// decided decides on a call as the first of its session.
func decided(bundle *policy.Bundle, call *policy.Call, now time.Time) *policy.Result {
	return policy.Decide(bundle, call, bundles.FreshFacts(bundle, call, now))
}
