// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Exported is a sequence of what an export gives: a ledger, the records of it, the next.
type Exported = iter.Seq2[*writv1.ExportRecordsResponse, error]

// export is an export of one ledger. What is given out was verified: each record by its
// place, and all of them together by the head.
type export struct {
	request  *writv1.ExportRecordsRequest
	verifier note.Verifier
	vkey     string
	prover   *ledger.Prover
	head     ledger.Head
	signed   []byte
	told     bool // the ledger was given out
	yield    func(*writv1.ExportRecordsResponse, error) bool
}

// start begins the first pass over the records from first on.
func (e *export) start(first uint64, before [][32]byte) (err error) {
	if e.prover, err = ledger.NewProver(first, before); err != nil {
		return err
	}
	for _, older := range e.request.GetOlderHeads() {
		if older.GetOrigin() == e.verifier.Name() {
			e.prover.Want(older.GetSize())
		}
	}
	return nil
}

// finish ends the first pass.
func (e *export) finish(head ledger.Head, signed []byte) error {
	e.head, e.signed = head, signed
	return e.prover.Surveyed(head)
}

// take takes the next record of the second pass.
func (e *export) take(selected *matcher, raw []byte) error {
	record := &writv1.Record{}
	if err := proto.Unmarshal(raw, record); err != nil { // canonical: it was verified
		return err
	}
	ok, err := selected.match(record)
	if err != nil {
		return err
	}
	proven, err := e.prover.Skip, error(nil)
	if ok {
		proven = e.prover.Keep
	}
	ready, err := proven(raw)
	if err != nil {
		return err
	}
	for _, p := range ready {
		if err := e.give(p); err != nil {
			return err
		}
	}
	return nil
}

// give gives a record out, and before the first the ledger.
func (e *export) give(p ledger.Proven) error {
	if !e.told {
		of, err := e.ledger()
		if err != nil {
			return err
		}
		if !e.yield(&writv1.ExportRecordsResponse{Message: &writv1.ExportRecordsResponse_Ledger{Ledger: of}}, nil) {
			return errEnough
		}
		e.told = true
	}
	record := &writv1.ProvenRecord{Record: p.Record, Path: p.Path}
	if !e.yield(&writv1.ExportRecordsResponse{Message: &writv1.ExportRecordsResponse_Record{Record: record}}, nil) {
		return errEnough
	}
	return nil
}

// ledger is the ledger as of its head, shown to go on from the first older head that was
// asked for.
func (e *export) ledger() (*writv1.ExportedLedger, error) {
	out := &writv1.ExportedLedger{VerifierKey: e.vkey, Head: e.signed}
	for _, older := range e.request.GetOlderHeads() {
		if older.GetOrigin() != e.verifier.Name() || older.GetSize() > e.head.Size {
			continue
		}
		path, err := e.prover.Consistency(older.GetSize())
		if errors.Is(err, ledger.ErrNoProof) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out.OlderSize, out.Consistency = proto.Uint64(older.GetSize()), path
		break
	}
	return out, nil
}

// ended is how an export ends.
func ended(err error, yield func(*writv1.ExportRecordsResponse, error) bool) {
	if err != nil && !errors.Is(err, errEnough) {
		yield(nil, err)
	}
}

// checkExport holds the request of an export against its rules.
func checkExport(r *writv1.ExportRecordsRequest) error {
	return errors.Join(check(r), checkFilter(r.GetFilter()))
}

// Export gives the records that a filter selects with what proves them. What is at the
// end under no signed head is not given out, and Incomplete tells of it; a ledger that is
// not whole gives nothing.
func (r *LedgerReader) Export(ctx context.Context, req *writv1.ExportRecordsRequest) Exported {
	return func(yield func(*writv1.ExportRecordsResponse, error) bool) {
		ended(r.export(ctx, req, yield), yield)
	}
}

func (r *LedgerReader) export(ctx context.Context, req *writv1.ExportRecordsRequest, yield func(*writv1.ExportRecordsResponse, error) bool) error {
	origin := req.GetFilter().GetOrigin()
	if err := checkExport(req); err != nil || origin != "" && origin != r.verifier.Name() {
		return err
	}
	e := &export{request: req, verifier: r.verifier, yield: yield}
	var err error
	if e.vkey, err = r.vkey(); err != nil {
		return err
	}
	in := ledger.NewDirReader(r.dir, r.verifier)
	err = in.Read(func(_ uint64, raw []byte) error {
		if e.prover == nil {
			if err := e.start(in.First(), in.Before()); err != nil {
				return err
			}
		}
		return errors.Join(context.Cause(ctx), e.prover.Survey(raw))
	})
	if err != nil || e.prover == nil {
		return err
	}
	r.note(in)
	if err := e.finish(in.Head()); err != nil {
		return err
	}
	selected, err := newMatcher(req.GetFilter(), r.verifier.Name())
	if err != nil {
		return err
	}
	return ledger.NewDirReader(r.dir, r.verifier).Read(func(index uint64, raw []byte) error {
		if index >= e.head.Size {
			return errEnough
		}
		return errors.Join(context.Cause(ctx), e.take(selected, raw))
	})
}

// note keeps what of the ledger is under no head.
func (r *LedgerReader) note(in *ledger.DirReader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.incomplete = uncovered(in)
}

// vkey is the text of the ledger's key.
func (r *LedgerReader) vkey() (string, error) {
	_, vkey, err := ledgerKey(r.dir)
	return vkey, err
}

// Export gives the records that a filter selects with what proves them, ledger by ledger.
func (r storeReader) Export(ctx context.Context, req *writv1.ExportRecordsRequest) Exported {
	return func(yield func(*writv1.ExportRecordsResponse, error) bool) {
		ended(r.export(ctx, req, yield), yield)
	}
}

func (r storeReader) export(ctx context.Context, req *writv1.ExportRecordsRequest, yield func(*writv1.ExportRecordsResponse, error) bool) error {
	if err := checkExport(req); err != nil {
		return err
	}
	ledgers, err := r.source.Ledgers(ctx)
	if err != nil {
		return err
	}
	for _, l := range ledgers {
		if origin := req.GetFilter().GetOrigin(); origin != "" && origin != l.Origin {
			continue
		}
		some, err := r.some(ctx, req.GetFilter(), l.Origin)
		if err != nil {
			return err
		}
		if !some {
			continue
		}
		if err := r.exportLedger(ctx, req, l, yield); err != nil {
			return fmt.Errorf("ledger %s: %w", l.Origin, err)
		}
	}
	return nil
}

// some says whether a filter selects any record of a ledger: where it does not, its
// records need not be read.
func (r storeReader) some(ctx context.Context, filter *writv1.RecordFilter, origin string) (bool, error) {
	of := &writv1.RecordFilter{}
	if filter != nil {
		of = proto.CloneOf(filter)
	}
	of.Origin = origin
	rows, err := r.source.List(ctx, store.Selection{Filter: of, Limit: 1})
	return len(rows) > 0, err
}

func (r storeReader) exportLedger(ctx context.Context, req *writv1.ExportRecordsRequest, l store.Ledger, yield func(*writv1.ExportRecordsResponse, error) bool) error {
	e := &export{request: req, vkey: l.VerifierKey, yield: yield}
	var err error
	if e.verifier, err = note.NewVerifier(l.VerifierKey); err != nil {
		return err
	}
	signed, err := ledger.Sole(l.Head, e.verifier)
	if err != nil {
		return err
	}
	head, err := ledger.OpenSole(signed, e.verifier)
	if err != nil {
		return err
	}
	if err := e.start(0, nil); err != nil {
		return err
	}
	logID := ledger.LogID(head.Origin)
	err = r.walk(ctx, head, func(index uint64, raw []byte) error {
		if _, err := ledger.CheckRecord(raw, logID, index); err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		return e.prover.Survey(raw)
	})
	if err != nil {
		return err
	}
	if err := e.finish(head, signed); err != nil {
		return err
	}
	selected, err := newMatcher(req.GetFilter(), head.Origin)
	if err != nil {
		return err
	}
	return r.walk(ctx, head, func(_ uint64, raw []byte) error { return e.take(selected, raw) })
}

// walk visits every record that a head is over, in order.
func (r storeReader) walk(ctx context.Context, head ledger.Head, visit func(index uint64, raw []byte) error) error {
	sel := store.Selection{Filter: &writv1.RecordFilter{Origin: head.Origin}, Forward: true}
	for index := uint64(0); index < head.Size; {
		sel.Limit = int(min(chunk, head.Size-index)) //nolint:gosec // at most chunk
		rows, err := r.source.List(ctx, sel)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return fmt.Errorf("%w: %d records are there, the head is over %d", store.ErrCorrupt, index, head.Size)
		}
		for _, row := range rows {
			if err := visit(index, row.Raw); err != nil {
				return err
			}
			index, sel.After = index+1, row.Seq
		}
	}
	return nil
}

// Export gives what the collector sends. Nothing of it is believed: whoever has the
// ledgers' keys verifies it.
func (r serviceReader) Export(ctx context.Context, req *writv1.ExportRecordsRequest) Exported {
	return func(yield func(*writv1.ExportRecordsResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		in, err := r.client.ExportRecords(ctx, req)
		if err != nil {
			yield(nil, answered(err))
			return
		}
		for {
			out, err := in.Recv()
			if isEOF(err) {
				return
			}
			if err == nil {
				err = check(out)
			}
			if err != nil {
				yield(nil, answered(err))
				return
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}
