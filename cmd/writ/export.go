// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/collector/export"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/proofs"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// proofEnding is what the name of a proof bundle has more than that of its data.
const proofEnding = ".proof.tar.zst"

func newRecordsExport(from *recordSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export --out FILE",
		Short: "Write records to a file, and a proof bundle beside it",
		Long: `Export writes the records that its filters select, ledger by ledger and each in its
own order, in a format that other programs read: ndjson, csv, parquet, ocsf or
cloudtrail. Beside the file it writes a proof bundle, with which "writ verify --export"
shows, from nothing else but a key or a head, that every record is in its ledger.

What is written was verified. Both files appear when they are whole, and replace what
had their names. Every record of the ledgers in question is read for it, twice.`,
		Args: cobra.NoArgs,
	}
	filter := &recordFilter{}
	filter.add(cmd)
	e := &exporting{from: from}
	cmd.Flags().StringVar(&e.format, "format", "ndjson", "format of the file: "+strings.Join(export.Formats(), ", "))
	cmd.Flags().StringVar(&e.out, "out", "", "file to write")
	cmd.Flags().StringVar(&e.proof, "proof", "", "proof bundle to write: .tar, .tar.gz or .tar.zst (default: the file's name and "+proofEnding+")")
	cmd.Flags().StringArrayVar(&e.heads, "head", nil, "file of a head that was kept, which the bundle is to show that its ledger goes on from")
	_ = cmd.MarkFlagRequired("out")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(export.Formats(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		selected, err := filter.message(time.Now())
		if err != nil {
			return err
		}
		e.filter, e.stderr = selected, cmd.ErrOrStderr()
		err = e.run(cmd.Context())
		if errors.Is(err, query.ErrTooMany) {
			return hinted(err, "a collector makes two exports at a time; this one can be tried again")
		}
		if err != nil {
			return from.advise(err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d records of %d ledgers  %s\nproof bundle  %s\n", e.records, len(e.origins), e.out, e.proof)
		return err
	}
	return cmd
}

// exporting is a run of "writ records export".
type exporting struct {
	from               *recordSource
	filter             *writv1.RecordFilter
	format, out, proof string
	heads              []string
	stderr             io.Writer

	kept    map[string]keptHead
	data    *dataFile
	bundle  *proofs.Writer
	head    ledger.Head // of the ledger under way
	records uint64
	origins []string
}

func (e *exporting) run(ctx context.Context) (err error) {
	if e.proof == "" {
		e.proof = e.out + proofEnding
	}
	if !slices.Contains(export.Formats(), e.format) {
		return hinted(fmt.Errorf("--format %q is no format", e.format), "one of %s", strings.Join(export.Formats(), ", "))
	}
	if filepath.Clean(e.out) == filepath.Clean(e.proof) {
		return errors.New("--out and --proof are one file")
	}
	if e.kept, err = readHeads(e.heads); err != nil {
		return err
	}
	reader, closer, err := e.from.open()
	if err != nil {
		return err
	}
	err = e.write(ctx, reader)
	if err == nil {
		err = e.from.complete(e.stderr, reader)
	}
	return errors.Join(err, closer.Close())
}

// write writes both files, which appear when both are whole: the data last.
func (e *exporting) write(ctx context.Context, reader query.Reader) error {
	data, err := pendingFile(e.out)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer data.Cleanup() //nolint:errcheck // what was not renamed is nothing to anybody
	proof, err := pendingFile(e.proof)
	if err != nil {
		return fmt.Errorf("--proof: %w", err)
	}
	defer proof.Cleanup() //nolint:errcheck // as above
	compressed, err := proofs.Compress(e.proof, proof)
	if err != nil {
		return err
	}
	if e.data, err = newDataFile(e.format, data); err != nil {
		return err
	}
	e.bundle = proofs.NewWriter(compressed)
	if err := e.take(ctx, reader); err != nil {
		return err
	}
	sum, err := e.data.close()
	if err != nil {
		return err
	}
	manifest, err := e.manifest(sum)
	if err != nil {
		return err
	}
	if err := errors.Join(e.bundle.Close(manifest), compressed.Close()); err != nil {
		return err
	}
	if err := proof.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("--proof: %w", err)
	}
	if err := data.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

// pendingFile is a file that appears under its name when it is whole. Until then it lies
// beside it: what is exported is not for a directory that all use.
func pendingFile(path string) (*renameio.PendingFile, error) {
	return renameio.NewPendingFile(path, renameio.WithPermissions(0o600), renameio.WithTempDir(filepath.Dir(path)))
}

// manifest says what was exported.
func (e *exporting) manifest(sum string) (proofs.Manifest, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e.filter)
	if err != nil {
		return proofs.Manifest{}, err
	}
	var filter bytes.Buffer
	if err := json.Compact(&filter, text); err != nil { // protojson puts blanks where it likes
		return proofs.Manifest{}, err
	}
	return proofs.Manifest{
		Program: "writ " + programVersion(), Time: time.Now().UTC().Format(time.RFC3339), Filter: filter.Bytes(),
		Format: e.format, Data: filepath.Base(e.out), DataSHA256: sum,
	}, nil
}

// take writes what a reader exports.
func (e *exporting) take(ctx context.Context, reader query.Reader) error {
	request := &writv1.ExportRecordsRequest{Filter: e.filter}
	for _, kept := range e.kept {
		request.OlderHeads = append(request.OlderHeads, &writv1.OlderHead{Origin: kept.head.Origin, Size: kept.head.Size})
	}
	shown := newProgress(e.stderr)
	defer shown.end()
	for item, err := range reader.Export(ctx, request) {
		if err != nil {
			return err
		}
		if of := item.GetLedger(); of != nil {
			err = e.ledger(of)
		} else {
			err = e.record(item.GetRecord())
		}
		if err != nil {
			return err
		}
		shown.at(e.records)
	}
	for origin, kept := range e.kept {
		if !slices.Contains(e.origins, origin) {
			return fmt.Errorf("--head %s: no record of %s is selected", kept.file, origin)
		}
	}
	return nil
}

// ledger begins a ledger, whose head must be signed with its key.
func (e *exporting) ledger(of *writv1.ExportedLedger) error {
	verifier, err := note.NewVerifier(of.GetVerifierKey())
	if err != nil {
		return fmt.Errorf("the key of a ledger: %w", err)
	}
	if e.head, err = ledger.OpenSole(of.GetHead(), verifier); err != nil {
		return fmt.Errorf("ledger %s: %w", verifier.Name(), err)
	}
	var older *proofs.Older
	kept, asked := e.kept[e.head.Origin]
	switch {
	case asked && of.OlderSize != nil && of.GetOlderSize() == kept.head.Size && kept.head.Size > 0:
		older = &proofs.Older{Head: kept.head, Path: of.GetConsistency()}
	case asked && kept.head.Size > e.head.Size:
		return fmt.Errorf("ledger %s: %w: the head that was kept is over %d records, this one over %d", e.head.Origin, ledger.ErrRollback, kept.head.Size, e.head.Size)
	case asked && kept.head.Size > 0:
		return fmt.Errorf("ledger %s: no path shows that it goes on from the head that was kept: the records before were pruned", e.head.Origin)
	}
	e.origins = append(e.origins, e.head.Origin)
	if err := e.bundle.Ledger(of.GetVerifierKey(), of.GetHead(), older); err != nil {
		return fmt.Errorf("ledger %s: %w", e.head.Origin, err)
	}
	return nil
}

// record verifies a record, and writes it.
func (e *exporting) record(of *writv1.ProvenRecord) error {
	if len(e.origins) == 0 {
		return errors.New("a record comes before its ledger")
	}
	raw := of.GetRecord()
	index := indexOf(raw)
	if _, err := ledger.CheckRecord(raw, ledger.LogID(e.head.Origin), index); err != nil {
		return fmt.Errorf("ledger %s: record %d: %w", e.head.Origin, index, err)
	}
	if err := (ledger.Inclusion{Index: index, Path: of.GetPath()}).Verify(raw, e.head); err != nil {
		return fmt.Errorf("ledger %s: record %d: %w", e.head.Origin, index, err)
	}
	if err := e.bundle.Record(ledger.Proven{Index: index, Record: raw, Path: of.GetPath()}); err != nil {
		return err
	}
	e.records++
	return e.data.Write(e.head.Origin, raw)
}

// indexOf is the index that a record says it has. Whether that is its index is for others
// to say.
func indexOf(raw []byte) uint64 {
	record := &writv1.Record{}
	if proto.Unmarshal(raw, record) != nil {
		return 0
	}
	return record.GetIndex()
}

// dataFile is the file of an export, on the way to a writer, with its digest.
type dataFile struct {
	export.Writer

	buffered *bufio.Writer
	sum      hash.Hash
}

func newDataFile(format string, w io.Writer) (*dataFile, error) {
	sum := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	out, err := export.New(format, buffered)
	return &dataFile{Writer: out, buffered: buffered, sum: sum}, err
}

// close ends the file and returns its digest.
func (d *dataFile) close() (string, error) {
	err := errors.Join(d.Writer.Close(), d.buffered.Flush())
	return hex.EncodeToString(d.sum.Sum(nil)), err
}

// progress tells a terminal, now and then, how far a command is.
type progress struct {
	out   io.Writer
	last  time.Time
	shown bool
}

// newProgress returns the progress that is told to w, if that is a terminal.
func newProgress(w io.Writer) *progress {
	file, ok := w.(*os.File)
	if !ok {
		return &progress{}
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{out: w}
}

// progressEvery is how often a terminal is told.
const progressEvery = 200 * time.Millisecond

func (p *progress) at(records uint64) {
	if p.out == nil {
		return
	}
	if now := time.Now(); now.Sub(p.last) >= progressEvery {
		p.last, p.shown = now, true
		fmt.Fprintf(p.out, "\rwrit: %d records", records)
	}
}

// end takes the line away.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
