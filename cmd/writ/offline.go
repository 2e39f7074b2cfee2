// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/sandbox"
)

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify --ledger DIR",
		Short: "Verify a ledger offline",
		Long: `Verify reads the segments of a ledger and checks every frame, record, tree and
signed head. It needs the files and the public key, and nothing else. It exits with
1 and names the first bad record when something is wrong.

Without --key the key that lies beside the ledger is used: that shows that the
ledger is whole, and not whose it is.`,
		Args: cobra.NoArgs,
	}
	form := addOutput(cmd)
	dir := cmd.Flags().StringP("ledger", "l", "", "directory of the ledger")
	key := cmd.Flags().StringP("key", "k", "", "file of the public key, a C2SP vkey (default: log.vkey in the ledger)")
	_ = cmd.MarkFlagRequired("ledger")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *key == "" {
			*key = filepath.Join(*dir, "log.vkey")
		}
		verifier, err := readVerifier(*key)
		if err != nil {
			return err
		}
		report, err := ledger.Verify(*dir, verifier)
		if err != nil {
			return err
		}
		return printReport(cmd, *form, report)
	}
	return cmd
}

func readVerifier(path string) (note.Verifier, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read the public key in %s: %w", path, err)
	}
	return verifier, nil
}

func printReport(cmd *cobra.Command, form output, report *ledger.Report) error {
	type fault struct {
		Segment string `json:"segment"`
		Offset  int64  `json:"offset"`
		Index   uint64 `json:"index"`
		What    string `json:"what"`
	}
	view := struct {
		Origin   string   `json:"origin"`
		Verified bool     `json:"verified"`
		Records  uint64   `json:"records"`
		Size     uint64   `json:"size"`
		Root     string   `json:"root"`
		Heads    uint64   `json:"heads"`
		Epochs   uint64   `json:"epochs"`
		Segments int      `json:"segments"`
		Ended    bool     `json:"ended"`
		Fault    *fault   `json:"fault,omitempty"`
		Notes    []string `json:"notes,omitempty"`
	}{
		Origin: report.Origin, Verified: report.Fault == nil, Records: report.Records, Size: report.Size,
		Root: hex.EncodeToString(report.Root[:]), Heads: report.Heads, Epochs: report.Epochs,
		Segments: report.Segments, Ended: report.Ended, Notes: report.Notes,
	}
	if f := report.Fault; f != nil {
		view.Fault = &fault{Segment: f.Segment, Offset: f.Offset, Index: f.Index, What: f.What.Error()}
	}
	if form == outputJSON {
		if err := printJSON(cmd.OutOrStdout(), view); err != nil {
			return err
		}
	} else {
		word := "verified"
		if view.Fault != nil {
			word = "NOT verified"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\nrecords   %d in %d segments, %d signed heads, %d epochs\nroot      %s of size %d\n",
			word, view.Origin, view.Records, view.Segments, view.Heads, view.Epochs, view.Root, view.Size)
		if f := view.Fault; f != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "first bad record  index %d, %s at byte %d: %s\n", f.Index, f.Segment, f.Offset, f.What)
		}
		for _, odd := range view.Notes {
			fmt.Fprintf(cmd.OutOrStdout(), "note      %s\n", odd)
		}
	}
	if view.Fault != nil {
		return errNo
	}
	return nil
}

func newSandbox() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Tell what isolation this machine gives to tools",
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Print the sandbox tier, what is missing, and how each limit is enforced",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := sandbox.Probe()
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), report.String()); err != nil {
				return err
			}
			if report.Tier < sandbox.T1 {
				return errNo
			}
			return nil
		},
	})
	return cmd
}

func newEnvoy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "envoy",
		Short: "Make Envoy's configuration",
	}
	bootstrap := &cobra.Command{
		Use:   "bootstrap --config FILE",
		Short: "Print a static Envoy configuration for the agent and its bundle's catalogue",
		Args:  cobra.NoArgs,
	}
	path := bootstrap.Flags().StringP("config", "c", "", "the agent's configuration file")
	_ = bootstrap.MarkFlagRequired("config")
	bootstrap.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := readAgentConfig(*path)
		if err != nil {
			return err
		}
		loaded, err := load(cmd.Context(), cmd, config.GetBundleDir())
		if err != nil {
			return err
		}
		text, err := bootstrapOf(config, loaded)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	cmd.AddCommand(bootstrap)
	return cmd
}

func bootstrapOf(config *writv1.AgentConfig, loaded *bundles.Loaded) ([]byte, error) {
	if config.GetEnvoy() == nil {
		return nil, errors.New("the agent's configuration says nothing of its Envoy: set envoy.listener and envoy.agent_listener")
	}
	input := resources.Input{Config: config, Catalogue: loaded.Bundle.Catalogue()}
	if jwt := config.GetIdentity().GetJwt(); jwt != nil {
		keys, err := os.ReadFile(jwt.GetJwksFile())
		if err != nil {
			return nil, fmt.Errorf("read the keys of identity.jwt: %w", err)
		}
		input.JWKS = keys
	}
	message, err := resources.Bootstrap(input)
	if err != nil {
		return nil, err
	}
	return resources.YAML(message)
}
