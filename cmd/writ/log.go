// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/collector/heads"
	"github.com/writ-dev/writ/collector/store"
)

func newLog() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Read the collector's own log of agents' heads",
	}
	prove := &cobra.Command{
		Use:   "prove --store DIR DECISION",
		Short: "Prove that the collector's log has the head over a decision",
		Long: `Prove prints a C2SP tlog-proof: the entry of the collector's log with the first signed
head over the decision that the collector took, the entry's path, and the log's newest
checkpoint with the signatures that it has. Nothing is printed that does not verify. It
works on the files, while a collector runs and while none does.`,
		Args: cobra.ExactArgs(1),
	}
	dir := prove.Flags().StringP("store", "s", "", "data directory of a collector")
	key := prove.Flags().String("log-key", "", "file of the public key of the collector's log, a C2SP vkey (default: the one beside the log)")
	_ = prove.MarkFlagRequired("store")
	_ = prove.MarkFlagDirname("store")
	prove.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := hex.DecodeString(args[0])
		if err != nil || len(id) != 16 {
			return hinted(fmt.Errorf("%q is no id of a decision", args[0]), "it has 32 hexadecimal digits: \"writ records list\" prints it")
		}
		return proveDecision(cmd.Context(), cmd.OutOrStdout(), *dir, &logFlags{key: *key}, id)
	}
	cmd.AddCommand(prove)
	return cmd
}

func proveDecision(ctx context.Context, w io.Writer, dir string, flags *logFlags, id []byte) error {
	e, err := flags.evidence(filepath.Join(dir, heads.Dir))
	if err != nil {
		return err
	}
	stored, err := store.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer stored.Close() //nolint:errcheck // read only
	e.Source = stored
	index, err := stored.EntryOf(ctx, id)
	if err != nil {
		return err
	}
	proof, err := heads.Prove(ctx, e, index)
	if errors.Is(err, heads.ErrPending) {
		return hinted(err, "a collector that runs publishes one in a second, or once its witnesses have cosigned")
	}
	if err != nil {
		return err
	}
	_, err = w.Write(proof)
	return err
}
