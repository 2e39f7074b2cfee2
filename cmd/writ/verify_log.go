// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/collector/heads"
	"github.com/writ-dev/writ/collector/store"
)

// logFlags are what a collector's log is held against, from elsewhere.
type logFlags struct {
	key, policy string
	checkpoints []string
}

func addLogFlags(cmd *cobra.Command) *logFlags {
	f := &logFlags{}
	cmd.Flags().StringVar(&f.key, "log-key", "", "file of the public key of the collector's log, a C2SP vkey (default: the one beside the log)")
	cmd.Flags().StringArrayVar(&f.checkpoints, "checkpoint", nil, "file of a checkpoint of the collector's log that was kept elsewhere")
	cmd.Flags().StringVar(&f.policy, "witnesses", "", "file of the policy that the log's newest checkpoint must satisfy")
	return f
}

func (f *logFlags) given() bool { return f.key != "" || f.policy != "" || len(f.checkpoints) > 0 }

// verifiedLog is what was found of a collector's log.
type verifiedLog struct {
	Origin     string `json:"origin"`
	Verified   bool   `json:"verified"`
	Size       uint64 `json:"size"`
	Root       string `json:"root"`
	Pending    uint64 `json:"pending"`
	Signatures int    `json:"signatures"`
	Fault      string `json:"fault,omitempty"`
}

// verify verifies the log beside a store. Nil is a store that has none, which is an error
// where something was given to hold it against.
func (f *logFlags) verify(ctx context.Context, dir string, stored *store.Store) (*verifiedLog, error) {
	dir = filepath.Join(dir, heads.Dir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if f.given() {
			return nil, fmt.Errorf("the store has no log beside it: %w", err)
		}
		return nil, nil
	}
	e, err := f.evidence(dir)
	if err != nil {
		return nil, err
	}
	e.Source = stored
	report, err := heads.Verify(ctx, e)
	if err != nil {
		return nil, err
	}
	found := &verifiedLog{
		Origin: report.Origin, Verified: report.Fault == nil, Size: report.Size, Root: hex.EncodeToString(report.Root[:]),
		Pending: report.Pending, Signatures: report.Signatures,
	}
	if report.Fault != nil {
		found.Fault = report.Fault.Error()
	}
	return found, nil
}

// evidence reads what the flags name.
func (f *logFlags) evidence(dir string) (e heads.Evidence, err error) {
	e.Dir = filepath.Join(dir, heads.TilesDir)
	key := f.key
	if key == "" {
		key = filepath.Join(dir, "log.vkey")
	}
	if e.Key, err = readVerifier(key); err != nil {
		return e, err
	}
	for _, path := range f.checkpoints {
		raw, err := heads.ReadCheckpoint(path)
		if err != nil {
			return e, fmt.Errorf("--checkpoint: %w", err)
		}
		e.Kept = append(e.Kept, raw)
	}
	if f.policy != "" {
		if e.Policy, err = heads.ReadPolicy(f.policy); err != nil {
			return e, fmt.Errorf("--witnesses: %w", err)
		}
	}
	return e, nil
}

func (l *verifiedLog) printText(w io.Writer) {
	word := "verified"
	if !l.Verified {
		word = "NOT verified"
	}
	fmt.Fprintf(w, "%s  %s\nlog       %d entries under a checkpoint with %d signatures, %d to come\nroot      %s of size %d\n",
		word, l.Origin, l.Size, l.Signatures, l.Pending, l.Root, l.Size)
	if l.Fault != "" {
		fmt.Fprintf(w, "fault     %s\n", l.Fault)
	}
}
