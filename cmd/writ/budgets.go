// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func newBudgets() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "budgets --config FILE",
		Short: "Tell what is left of an agent's budgets",
		Long: `Budgets folds an agent's ledger, which is verified as it is read, and tells what was
taken of each budget of the bundle, what is left and when it is refilled. It reads
beside the agent that writes the ledger, or without. Budgets of which nothing is taken
are left out.`,
		Args: cobra.NoArgs,
	}
	path := cmd.Flags().StringP("config", "c", "", "the agent's configuration file")
	at := cmd.Flags().String("at", "", "time at which to tell it, RFC 3339 (default: now)")
	_ = cmd.MarkFlagRequired("config")
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		if *at != "" {
			var err error
			if now, err = time.Parse(time.RFC3339, *at); err != nil {
				return fmt.Errorf("--at: %w", err)
			}
		}
		config, err := readAgentConfig(*path)
		if err != nil {
			return err
		}
		loaded, err := load(cmd.Context(), cmd, config.GetBundleDir())
		if err != nil {
			return err
		}
		state, err := foldLedger(filepath.Join(config.GetDataDir(), "ledger"), int(or(config.GetLimits().GetAdmissions(), 100_000)))
		if err != nil {
			return err
		}
		return printStandings(cmd.OutOrStdout(), *form, state.Standings(loaded.Bundle, now))
	}
	return cmd
}

// foldLedger returns the state that a ledger's records give, with the snapshot beside
// them.
func foldLedger(dir string, limit int) (*agent.State, error) {
	verifier, err := query.LedgerKey(dir)
	if err != nil {
		return nil, hinted(err, "an agent keeps its ledger in \"ledger\" below its data_dir")
	}
	state, err := agent.LoadSnapshot(dir, limit)
	if err != nil {
		return nil, err
	}
	err = ledger.NewDirReader(dir, verifier).Read(func(_ uint64, raw []byte) error {
		record := &writv1.Record{}
		if err := canonical.Unmarshal(raw, record); err != nil {
			return fmt.Errorf("read a record: %w", err)
		}
		return state.Fold(record)
	})
	var fault *ledger.Fault
	if errors.As(err, &fault) {
		return nil, hinted(fmt.Errorf("the ledger is not whole: %w", err), "\"writ verify --ledger %s\" tells more", dir)
	}
	return state, err
}

func printStandings(w io.Writer, form output, standings []*writv1.BudgetStanding) error {
	if form == outputJSON {
		all := []json.RawMessage{}
		for _, standing := range standings {
			text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(standing)
			if err != nil {
				return fmt.Errorf("print: %w", err)
			}
			all = append(all, text)
		}
		return printJSON(w, all)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "BUDGET\tOF\tTAKEN\tLIMIT\tLEFT\tREFILLS")
	for _, s := range standings {
		refills := "never"
		if s.GetRefillTime() != nil {
			refills = s.GetRefillTime().AsTime().Format(time.RFC3339)
		}
		limit := policy.Amount(s.GetDimension(), s.GetLimit())
		if s.GetCap() == writv1.BudgetCap_BUDGET_CAP_SOFT {
			limit += " (soft)"
		}
		if s.Leased != nil {
			limit = policy.Amount(s.GetDimension(), s.GetLeased()) + " of " + limit
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", s.GetBudget(), keyText(s.GetKey()),
			policy.Amount(s.GetDimension(), s.GetTaken()), limit, policy.Amount(s.GetDimension(), s.GetLeft()), refills)
	}
	return table.Flush()
}

// keyText writes the parts of a key so that none can pass for two, nor for something
// that a terminal obeys.
func keyText(key []string) string {
	parts := make([]string, len(key))
	for i, part := range key {
		parts[i] = query.Word(part)
	}
	return strings.Join(parts, " ")
}
