// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/export"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/proofs"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// verifiedExport is what was found of an export as a whole.
type verifiedExport struct {
	Records  uint64           `json:"records"`
	Manifest *proofs.Manifest `json:"manifest,omitempty"`
	// Data says that the file of the export was held against the records.
	Data  bool         `json:"data"`
	Fault *ledgerFault `json:"fault,omitempty"` // before the first ledger, or after the last record
}

func (e *verifiedExport) printText(w io.Writer, verified bool) {
	word := "verified"
	if !verified {
		word = "NOT verified"
	}
	fmt.Fprintf(w, "%s  the export: %d records are proven\n", word, e.Records)
	if e.Data {
		fmt.Fprintln(w, "data      the file says what the proven records say")
	}
	e.Fault.printText(w)
}

// verifyExport verifies a proof bundle, and the data beside it.
func (v *verifying) verifyExport(ctx context.Context) (found *verification, err error) {
	trust := proofs.Trust{Heads: map[string]ledger.Head{}}
	if trust.Keys, err = v.readKeys(); err != nil {
		return nil, err
	}
	for origin, kept := range v.kept {
		trust.Heads[origin] = kept.head
	}
	file, err := os.Open(v.export)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // read only
	var against *comparison
	if v.data != "" {
		// A bundle whose manifest cannot be read is not whole, which is found below.
		if manifest, err := proofs.ReadManifest(file); err == nil {
			if against, err = newComparison(v.data, manifest.Format); err != nil {
				return nil, err
			}
			defer against.file.Close() //nolint:errcheck // read only
			trust.Record, trust.Manifest = against.record, against.end
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
	}
	report, err := proofs.Verify(&interruptible{ctx, file}, trust)
	if errors.Is(err, proofs.ErrUntold) {
		return nil, hinted(err, "\"writ records export --head FILE\" makes a bundle that shows it")
	}
	if err != nil {
		return nil, err
	}
	if err := v.accounted(report); err != nil {
		return nil, err
	}
	return v.ofExport(report, against != nil), nil
}

// interruptible is a reader that fails when its context ends.
type interruptible struct {
	ctx context.Context
	in  io.Reader
}

func (i *interruptible) Read(b []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.in.Read(b)
}

// accounted says whether every key and head that was given is one of the bundle's.
func (v *verifying) accounted(report *proofs.Report) error {
	if report.Fault != nil {
		return nil
	}
	given, err := v.readKeys()
	if err != nil {
		return err
	}
	for origin := range given {
		if !slices.ContainsFunc(report.Ledgers, func(l proofs.LedgerReport) bool { return l.Origin == origin }) {
			return fmt.Errorf("--key: the export has no ledger %s", origin)
		}
	}
	for origin, kept := range v.kept {
		if !slices.ContainsFunc(report.Ledgers, func(l proofs.LedgerReport) bool { return l.Origin == origin }) {
			return fmt.Errorf("--head %s: the export has no ledger %s", kept.file, origin)
		}
	}
	return nil
}

func (v *verifying) ofExport(report *proofs.Report, data bool) *verification {
	out := &verification{
		Verified: report.Fault == nil, Ledgers: []verifiedLedger{},
		Export: &verifiedExport{Records: report.Records, Manifest: report.Manifest, Data: data && report.Fault == nil},
	}
	for _, l := range report.Ledgers {
		view := verifiedLedger{
			Origin: l.Origin, Verified: true, First: l.First, Size: l.Size, Root: hex.EncodeToString(l.Root[:]), Heads: 1,
			Records: l.Records, Head: string(l.Head),
		}
		if kept, ok := v.kept[l.Origin]; ok && l.Kept {
			view.Kept = &kept.head.Size
		}
		if !l.Trusted {
			view.Notes = append(view.Notes, "no key was given: it is verified with the one in the bundle, which shows that it is whole and not whose it is")
		}
		if !l.Whole() {
			view.Notes = append(view.Notes, "the bundle shows that these records were recorded, not that no other was")
		}
		out.Ledgers = append(out.Ledgers, view)
	}
	f := report.Fault
	if f == nil {
		return out
	}
	view := &ledgerFault{Index: f.Index, Entry: f.Entry, What: query.Printable(f.What.Error())}
	n := len(out.Ledgers) - 1
	if n < 0 || out.Ledgers[n].Origin != f.Origin {
		out.Export.Fault = view
		return out
	}
	if kept, ok := v.kept[f.Origin]; ok && contradicts(f) {
		view.Evidence = []string{string(kept.note), out.Ledgers[n].Head}
	}
	out.Ledgers[n].Verified, out.Ledgers[n].Fault = false, view
	return out
}

// comparison holds a file against what a format makes of the proven records.
type comparison struct {
	file *os.File
	in   *bufio.Reader
	out  export.Writer
	at   int64 // byte of the file
}

func newComparison(path, format string) (*comparison, error) {
	file, err := os.Open(path) //nolint:gosec // the caller names it
	if err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	c := &comparison{file: file, in: bufio.NewReaderSize(file, 64<<10)}
	if c.out, err = export.New(format, c); err != nil {
		return nil, errors.Join(fmt.Errorf("--data: %w", err), file.Close())
	}
	return c, nil
}

// Write compares what a record gives with what the file has.
func (c *comparison) Write(want []byte) (int, error) {
	got := make([]byte, len(want))
	n, err := io.ReadFull(c.in, got)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, fmt.Errorf("--data: %w", err)
	}
	if n < len(want) || !bytes.Equal(got, want) {
		same := 0
		for same < n && got[same] == want[same] {
			same++
		}
		return 0, fmt.Errorf("the file that was exported says something else from byte %d on", c.at+int64(same))
	}
	c.at += int64(n)
	return n, nil
}

func (c *comparison) record(origin string, raw []byte) error { return c.out.Write(origin, raw) }

// end compares what stands after the last record.
func (c *comparison) end(proofs.Manifest) error {
	if err := c.out.Close(); err != nil {
		return err
	}
	if _, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the file that was exported goes on after the last record, at byte %d", c.at)
	}
	return nil
}

// holdStore holds the ledgers of a store against the heads that were kept, and finds each
// one's newest.
func (v *verifying) holdStore(ctx context.Context, found *verification) error {
	kept, err := store.OpenReadOnly(ctx, v.store)
	if err != nil {
		return err
	}
	all, err := kept.Ledgers(ctx)
	if err := errors.Join(err, kept.Close()); err != nil {
		return err
	}
	for origin, head := range v.kept {
		if !slices.ContainsFunc(all, func(l store.Ledger) bool { return l.Origin == origin }) {
			return fmt.Errorf("--head %s: the store has no ledger %s", head.file, origin)
		}
	}
	for _, l := range all {
		i := slices.IndexFunc(found.Ledgers, func(view verifiedLedger) bool { return view.Origin == l.Origin })
		if i < 0 || !found.Ledgers[i].Verified {
			continue // stored meanwhile, or not whole anyway
		}
		view := &found.Ledgers[i]
		if l.Size == view.Size {
			view.Head = string(l.Head)
		}
		if head, ok := v.kept[l.Origin]; ok {
			if err := v.holdLedger(ctx, head, l, view); err != nil {
				return err
			}
			found.Verified = found.Verified && view.Verified
		}
	}
	return nil
}

// holdLedger holds one ledger of a store against a head that was kept.
func (v *verifying) holdLedger(ctx context.Context, kept keptHead, l store.Ledger, view *verifiedLedger) error {
	verifier, err := note.NewVerifier(l.VerifierKey)
	if err != nil {
		return err
	}
	if _, err := kept.signedBy(verifier); err != nil {
		return err
	}
	contradiction, err := contradictionIn(ctx, v.store, kept.head, verifier)
	if err != nil {
		return err
	}
	if contradiction == nil {
		view.Kept = &kept.head.Size
		return nil
	}
	view.Verified = false
	view.Fault = &ledgerFault{Index: min(view.Size, kept.head.Size), What: contradiction.Error(), Evidence: []string{string(kept.note), string(l.Head)}}
	return nil
}

// contradictionIn says how a ledger of a store contradicts a head, or nil.
func contradictionIn(ctx context.Context, dir string, kept ledger.Head, verifier note.Verifier) (contradiction, err error) {
	request := &writv1.ExportRecordsRequest{
		Filter:     &writv1.RecordFilter{Origin: kept.Origin},
		OlderHeads: []*writv1.OlderHead{{Origin: kept.Origin, Size: kept.Size}},
	}
	for item, err := range query.FromStoreDir(dir).Export(ctx, request) {
		if err != nil {
			return nil, err
		}
		of := item.GetLedger()
		head, err := ledger.OpenSole(of.GetHead(), verifier)
		switch {
		case err != nil:
			return nil, err
		case of.OlderSize == nil:
			return fmt.Errorf("%w: the head that was kept is over %d records, those here are over %d", ledger.ErrRollback, kept.Size, head.Size), nil
		}
		if err := ledger.VerifyConsistency(kept, head, of.GetConsistency()); err != nil {
			return fmt.Errorf("%w: %w", ledger.ErrFork, err), nil
		}
		return nil, nil
	}
	return nil, fmt.Errorf("the store has no record of %s", kept.Origin)
}
