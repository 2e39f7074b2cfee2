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
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/reads"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
)

// maxKey bounds the file of a public key: a vkey is one line.
const maxKey = 4096

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify {--ledger | --store} DIR",
		Short: "Verify a ledger or a collector's store offline",
		Long: `Verify reads an agent's ledger or a collector's store and checks every record, tree
and signed head from the bytes alone. It needs the files and the public keys, and
nothing else, changes nothing, and works while they are written. It exits with 1 and
names the first bad record when something is wrong.

Without --key the keys that lie in the directory are used: that shows that the
records are whole, and not whose they are. For a store --key is given once for each
ledger that it is to be held against.`,
		Args: cobra.NoArgs,
	}
	form := addOutput(cmd)
	dir := cmd.Flags().StringP("ledger", "l", "", "directory of an agent's ledger")
	kept := cmd.Flags().StringP("store", "s", "", "data directory of a collector")
	keys := cmd.Flags().StringArrayP("key", "k", nil, "file of a public key, a C2SP vkey (default: what lies in the directory)")
	cmd.MarkFlagsOneRequired("ledger", "store")
	cmd.MarkFlagsMutuallyExclusive("ledger", "store")
	for _, flag := range []string{"ledger", "store"} {
		_ = cmd.MarkFlagDirname(flag)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var found *verification
		var err error
		if *kept != "" {
			found, err = verifyStore(cmd.Context(), *kept, *keys)
		} else {
			found, err = verifyLedger(*dir, *keys)
		}
		if err != nil {
			return err
		}
		return found.print(cmd.OutOrStdout(), *form)
	}
	return cmd
}

// verification is what was found, as it is printed.
type verification struct {
	Verified bool             `json:"verified"`
	Ledgers  []verifiedLedger `json:"ledgers"`
	Damage   []string         `json:"damage,omitempty"`
	Findings []finding        `json:"findings,omitempty"`
}

// verifiedLedger is what was found of one ledger.
type verifiedLedger struct {
	Origin   string       `json:"origin"`
	Verified bool         `json:"verified"`
	First    uint64       `json:"first"`
	Size     uint64       `json:"size"`
	Root     string       `json:"root"`
	Heads    uint64       `json:"heads"`
	Epochs   uint64       `json:"epochs"`
	Ended    bool         `json:"ended"`
	Fault    *ledgerFault `json:"fault,omitempty"`
	Notes    []string     `json:"notes,omitempty"`
}

// ledgerFault is the first thing that is wrong with a ledger.
type ledgerFault struct {
	Index   uint64 `json:"index"`
	Segment string `json:"segment,omitempty"`
	Offset  int64  `json:"offset,omitempty"`
	What    string `json:"what"`
}

// finding is what a collector refused, with the evidence.
type finding struct {
	Origin   string    `json:"origin"`
	Kind     string    `json:"kind"`
	Detail   string    `json:"detail"`
	HeldSize uint64    `json:"held_size"`
	HeldHead string    `json:"held_head,omitempty"`
	Head     string    `json:"head,omitempty"`
	First    time.Time `json:"first_time"`
	Last     time.Time `json:"last_time"`
	Count    int       `json:"count"`
}

func verifyLedger(dir string, keys []string) (*verification, error) {
	if len(keys) > 1 {
		return nil, errors.New("a ledger has one key; --key is given once")
	}
	key := filepath.Join(dir, "log.vkey")
	if len(keys) == 1 {
		key = keys[0]
	}
	verifier, err := readVerifier(key)
	if err != nil {
		return nil, err
	}
	view, err := verifiedLedgerOf(dir, verifier)
	if err != nil {
		return nil, err
	}
	return &verification{Verified: view.Verified, Ledgers: []verifiedLedger{view}}, nil
}

// verifiedLedgerOf verifies the ledger in a directory.
func verifiedLedgerOf(dir string, verifier note.Verifier) (verifiedLedger, error) {
	report, err := ledger.Verify(dir, verifier)
	if err != nil {
		return verifiedLedger{}, err
	}
	view := verifiedLedger{
		Origin: report.Origin, Verified: report.Fault == nil, First: report.First, Size: report.Size,
		Root: hex.EncodeToString(report.Root[:]), Heads: report.Heads, Epochs: report.Epochs,
		Ended: report.Ended, Notes: report.Notes,
	}
	if f := report.Fault; f != nil {
		view.Fault = &ledgerFault{Index: f.Index, Segment: f.Segment, Offset: f.Offset, What: f.What.Error()}
	}
	return view, nil
}

func verifyStore(ctx context.Context, dir string, keys []string) (*verification, error) {
	known := make(map[string]note.Verifier, len(keys))
	for _, path := range keys {
		verifier, err := readVerifier(path)
		if err != nil {
			return nil, err
		}
		known[verifier.Name()] = verifier
	}
	report, err := store.VerifyWith(ctx, dir, known)
	if err != nil {
		return nil, err
	}
	found := &verification{Verified: report.Err() == nil, Ledgers: []verifiedLedger{}, Damage: report.Damage}
	for _, l := range report.Ledgers {
		delete(known, l.Origin)
		view := verifiedLedger{
			Origin: l.Origin, Verified: l.Fault == nil, Size: l.Size, Root: hex.EncodeToString(l.Root[:]),
			Heads: l.Heads, Epochs: l.Epochs, Ended: l.Ended, Notes: l.Notes,
		}
		if l.Fault != nil {
			view.Fault = &ledgerFault{Index: l.Fault.Index, What: l.Fault.What.Error()}
		}
		found.Ledgers = append(found.Ledgers, view)
	}
	if err := found.addReads(filepath.Join(dir, reads.DirName), known); err != nil {
		return nil, err
	}
	for origin := range known {
		return nil, fmt.Errorf("--key: the store has no ledger %s", origin)
	}
	if report.Findings == 0 {
		return found, nil
	}
	found.Findings, err = findingsIn(ctx, dir)
	return found, err
}

// addReads verifies the collector's record of what was read, where there is one, with the
// key that is known of it or that lies beside it.
func (v *verification) addReads(dir string, known map[string]note.Verifier) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	key, err := readVerifier(filepath.Join(dir, "log.vkey"))
	if err != nil {
		return err
	}
	if given := known[key.Name()]; given != nil {
		key = given
		delete(known, key.Name())
	}
	view, err := verifiedLedgerOf(dir, key)
	if err != nil {
		return err
	}
	v.Ledgers, v.Verified = append(v.Ledgers, view), v.Verified && view.Verified
	return nil
}

func findingsIn(ctx context.Context, dir string) ([]finding, error) {
	kept, err := store.OpenReadOnly(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer kept.Close() //nolint:errcheck // read only
	all, err := kept.Findings(ctx, "")
	if err != nil {
		return nil, err
	}
	var views []finding
	for _, f := range all {
		views = append(views, finding{
			Origin: f.Origin, Kind: f.Kind, Detail: f.Detail, HeldSize: f.HeldSize,
			HeldHead: string(f.HeldHead), Head: string(f.Head), First: f.FirstTime, Last: f.Time, Count: f.Count,
		})
	}
	return views, nil
}

// print prints what was found, and returns errNo where something is wrong.
func (v *verification) print(w io.Writer, form output) error {
	if form == outputJSON {
		if err := printJSON(w, v); err != nil {
			return err
		}
	} else {
		v.printText(w)
	}
	if !v.Verified {
		return errNo
	}
	return nil
}

func (v *verification) printText(w io.Writer) {
	for _, l := range v.Ledgers {
		word := "verified"
		if !l.Verified {
			word = "NOT verified"
		}
		fmt.Fprintf(w, "%s  %s\nrecords   %d to %d, under %d signed heads, in %d epochs\nroot      %s of size %d\n",
			word, l.Origin, l.First, l.Size, l.Heads, l.Epochs, l.Root, l.Size)
		if f := l.Fault; f != nil {
			place := ""
			if f.Segment != "" {
				place = fmt.Sprintf(", %s at byte %d", f.Segment, f.Offset)
			}
			fmt.Fprintf(w, "first bad record  index %d%s: %s\n", f.Index, place, f.What)
		}
		for _, odd := range l.Notes {
			fmt.Fprintf(w, "note      %s\n", odd)
		}
	}
	for _, damage := range v.Damage {
		fmt.Fprintf(w, "damage    %s\n", damage)
	}
	for _, f := range v.Findings {
		fmt.Fprintf(w, "finding   %s  %s: %q, %d times, last %s; %d records are held (both heads: --output json)\n",
			f.Kind, f.Origin, f.Detail, f.Count, f.Last.UTC().Format(time.RFC3339), f.HeldSize)
	}
	if len(v.Ledgers) == 0 {
		fmt.Fprintln(w, "the store holds no ledger")
	}
}

func readVerifier(path string) (note.Verifier, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(file, maxKey))
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read the public key in %s: %w", path, err)
	}
	return verifier, nil
}
