// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/archive"
)

// maxKey bounds the file of a public key: a vkey is one line.
const maxKey = 4096

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify {--ledger DIR | --store DIR | --export FILE}",
		Short: "Verify a ledger, a collector's store or an export offline",
		Long: `Verify reads an agent's ledger (a directory, or a tar archive of one), a collector's
store, or the proof bundle of an export, and checks every record, tree and signed head
from the bytes alone. It needs the files and the public keys, and nothing else, changes
nothing, and works while they are written. It exits with 1 and names the first bad record
when something is wrong, with 2 when it could not tell.

Without --key the keys that lie beside the records are used: that shows that the
records are whole, and not whose they are. For a store or an export --key is given once
for each ledger that it is to be held against; an export with others fails then.

What no file shows by itself, that the ledger has no other history and that nothing was
cut off its end, takes a head that somebody kept elsewhere: --head, once for each ledger.

A store is held against the collector's own log beside it too: everything that is stored
must be in the log, or be about to. --log-key is the log's key from elsewhere,
--checkpoint a checkpoint of it that was kept elsewhere, and --witnesses the policy (C2SP
tlog-policy) that its newest checkpoint must satisfy.`,
		Args: cobra.NoArgs,
	}
	form := addOutput(cmd)
	v := &verifying{log: addLogFlags(cmd)}
	cmd.Flags().StringVarP(&v.ledger, "ledger", "l", "", "directory of an agent's ledger, or a tar archive of one")
	cmd.Flags().StringVarP(&v.store, "store", "s", "", "data directory of a collector")
	cmd.Flags().StringVarP(&v.export, "export", "e", "", "proof bundle of an export")
	cmd.Flags().StringArrayVarP(&v.keys, "key", "k", nil, "file of a public key, a C2SP vkey (default: what lies beside the records)")
	cmd.Flags().StringArrayVar(&v.heads, "head", nil, "file of a head that was kept elsewhere, a C2SP checkpoint, which is believed")
	cmd.Flags().StringVar(&v.data, "data", "", "with --export: the file that was exported, which must say what the proven records say")
	save := cmd.Flags().String("save-head", "", "file to write the newest head to that was verified, for --head another day")
	cmd.MarkFlagsOneRequired("ledger", "store", "export")
	cmd.MarkFlagsMutuallyExclusive("ledger", "store", "export")
	cmd.MarkFlagsMutuallyExclusive("ledger", "data")
	cmd.MarkFlagsMutuallyExclusive("store", "data")
	_ = cmd.MarkFlagDirname("store")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v.stderr = cmd.ErrOrStderr()
		found, err := v.run(cmd.Context())
		if err == nil && *save != "" {
			err = saveHead(*save, found)
		}
		if err != nil {
			return err
		}
		return found.print(cmd.OutOrStdout(), *form)
	}
	return cmd
}

// verifying is a run of "writ verify".
type verifying struct {
	ledger, store, export, data string
	keys, heads                 []string
	stderr                      io.Writer
	log                         *logFlags

	kept map[string]keptHead
}

func (v *verifying) run(ctx context.Context) (found *verification, err error) {
	if v.kept, err = readHeads(v.heads); err != nil {
		return nil, err
	}
	switch {
	case v.store == "" && v.log.given():
		return nil, errors.New("--log-key, --checkpoint and --witnesses go with --store: only a collector has a log beside its records")
	case v.store != "":
		return v.verifyStore(ctx)
	case v.export != "":
		return v.verifyExport(ctx)
	default:
		return v.verifyLedger(ctx)
	}
}

// verification is what was found, as it is printed.
type verification struct {
	Verified bool             `json:"verified"`
	Ledgers  []verifiedLedger `json:"ledgers"`
	Export   *verifiedExport  `json:"export,omitempty"`
	Damage   []string         `json:"damage,omitempty"`
	Findings []finding        `json:"findings,omitempty"`
	Log      *verifiedLog     `json:"log,omitempty"`
}

// verifiedLedger is what was found of one ledger.
type verifiedLedger struct {
	Origin   string `json:"origin"`
	Verified bool   `json:"verified"`
	First    uint64 `json:"first"`
	Size     uint64 `json:"size"`
	Root     string `json:"root"`
	Heads    uint64 `json:"heads"`
	Epochs   uint64 `json:"epochs"`
	Ended    bool   `json:"ended"`
	// Records is how many an export has of it.
	Records uint64 `json:"records,omitempty"`
	// Head is the newest signed head that was verified.
	Head string `json:"head,omitempty"`
	// Kept is the size of the head that was kept elsewhere, and that the ledger goes on from.
	Kept  *uint64      `json:"kept_head_size,omitempty"`
	Fault *ledgerFault `json:"fault,omitempty"`
	Notes []string     `json:"notes,omitempty"`
}

// ledgerFault is the first thing that is wrong with a ledger.
type ledgerFault struct {
	Index   uint64 `json:"index"`
	Segment string `json:"segment,omitempty"`
	Offset  int64  `json:"offset,omitempty"`
	Entry   string `json:"entry,omitempty"`
	What    string `json:"what"`
	// Evidence are the heads that contradict each other: the one that was kept, and the
	// newest one here.
	Evidence []string `json:"evidence,omitempty"`
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

// verifyLedger verifies a ledger in a directory, or in an archive of one.
func (v *verifying) verifyLedger(ctx context.Context) (*verification, error) {
	if len(v.keys) > 1 {
		return nil, errors.New("a ledger has one key; --key is given once")
	}
	dir := v.ledger
	if info, err := os.Stat(dir); err == nil && info.Mode().IsRegular() {
		unpacked, err := v.unpack(ctx)
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(unpacked) //nolint:errcheck // a copy
		dir = unpacked
	}
	key := filepath.Join(dir, "log.vkey")
	if len(v.keys) == 1 {
		key = v.keys[0]
	}
	verifier, err := readVerifier(key)
	if err != nil {
		return nil, err
	}
	kept, err := v.keptOf(verifier)
	if err != nil {
		return nil, err
	}
	var report *ledger.Report
	if kept != nil {
		report, err = ledger.VerifyAgainst(dir, verifier, kept.head)
	} else {
		report, err = ledger.Verify(dir, verifier)
	}
	if err != nil {
		return nil, err
	}
	return v.ofLedger(report, kept)
}

// unpack takes the ledger out of an archive, into a directory that the caller removes.
func (v *verifying) unpack(ctx context.Context) (string, error) {
	file, err := os.Open(v.ledger)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // read only
	unpacked, err := archive.Unpack(ctx, file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", v.ledger, err)
	}
	if unpacked.PrivateKey {
		fmt.Fprintln(v.stderr, "writ: note: the archive holds log.key: whoever reads it can sign in the ledger's name")
	}
	return unpacked.Dir, nil
}

func (v *verifying) ofLedger(report *ledger.Report, kept *keptHead) (*verification, error) {
	view := verifiedLedger{
		Origin: report.Origin, Verified: report.Fault == nil, First: report.First, Size: report.Size,
		Root: hex.EncodeToString(report.Root[:]), Heads: report.Heads, Epochs: report.Epochs,
		Ended: report.Ended, Head: string(report.Head), Notes: report.Notes,
	}
	if f := report.Fault; f != nil {
		view.Fault = &ledgerFault{Index: f.Index, Segment: f.Segment, Offset: f.Offset, What: f.What.Error()}
		if contradicts(f) && kept != nil {
			view.Fault.Evidence = []string{string(kept.note), string(report.Head)}
		}
	} else if kept != nil {
		view.Kept = &kept.head.Size
	}
	return &verification{Verified: view.Verified, Ledgers: []verifiedLedger{view}}, nil
}

// contradicts says whether a fault is one that only a head which was kept shows.
func contradicts(err error) bool {
	return errors.Is(err, ledger.ErrFork) || errors.Is(err, ledger.ErrRollback)
}

// keptOf is the head that was kept of a ledger, or nil. One of any other is an error.
func (v *verifying) keptOf(verifier note.Verifier) (*keptHead, error) {
	for origin, kept := range v.kept {
		if origin != verifier.Name() {
			return nil, fmt.Errorf("--head %s: it is of %s, the key of %s", kept.file, origin, verifier.Name())
		}
		if _, err := kept.signedBy(verifier); err != nil {
			return nil, err
		}
		return &kept, nil
	}
	return nil, nil
}

func (v *verifying) readKeys() (map[string]note.Verifier, error) {
	known := make(map[string]note.Verifier, len(v.keys))
	for _, path := range v.keys {
		verifier, err := readVerifier(path)
		if err != nil {
			return nil, err
		}
		known[verifier.Name()] = verifier
	}
	return known, nil
}

func (v *verifying) verifyStore(ctx context.Context) (*verification, error) {
	known, err := v.readKeys()
	if err != nil {
		return nil, err
	}
	report, err := store.VerifyWith(ctx, v.store, known)
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
	if err := v.addReads(found, known); err != nil {
		return nil, err
	}
	for origin := range known {
		return nil, fmt.Errorf("--key: the store has no ledger %s", origin)
	}
	if err := v.holdStore(ctx, found); err != nil {
		return nil, err
	}
	stored, err := store.OpenReadOnly(ctx, v.store)
	if err != nil {
		return nil, err
	}
	defer stored.Close() //nolint:errcheck // read only
	if found.Log, err = v.log.verify(ctx, v.store, stored); err != nil {
		return nil, err
	}
	found.Verified = found.Verified && (found.Log == nil || found.Log.Verified)
	if report.Findings > 0 {
		found.Findings, err = findingsIn(ctx, stored)
	}
	return found, err
}

func findingsIn(ctx context.Context, stored *store.Store) ([]finding, error) {
	all, err := stored.Findings(ctx, "")
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
		fmt.Fprintf(w, "%s  %s\n%s\nroot      %s of size %d\n", word, l.Origin, v.held(l), l.Root, l.Size)
		if l.Kept != nil {
			fmt.Fprintf(w, "kept      it goes on from the head of size %d that was kept\n", *l.Kept)
		}
		l.Fault.printText(w)
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
	switch {
	case v.Export != nil:
		v.Export.printText(w, v.Verified)
	case len(v.Ledgers) == 0:
		fmt.Fprintln(w, "the store holds no ledger")
	}
	if v.Log != nil {
		v.Log.printText(w)
	}
}

// held is what there is of a ledger.
func (v *verification) held(l verifiedLedger) string {
	if v.Export != nil {
		return fmt.Sprintf("records   %d, of the %d that its head is over", l.Records, l.Size)
	}
	return fmt.Sprintf("records   %d to %d, under %d signed heads, in %d epochs", l.First, l.Size, l.Heads, l.Epochs)
}

func (f *ledgerFault) printText(w io.Writer) {
	if f == nil {
		return
	}
	place := ""
	switch {
	case f.Segment != "":
		place = fmt.Sprintf(", %s at byte %d", f.Segment, f.Offset)
	case f.Entry != "":
		place = ", " + f.Entry
	}
	fmt.Fprintf(w, "first bad record  index %d%s: %s\n", f.Index, place, f.What)
}

func readVerifier(path string) (note.Verifier, error) {
	text, err := readBounded(path, maxKey)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read the public key in %s: %w", path, err)
	}
	return verifier, nil
}
