// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxNotes bounds the notes of each kind about a ledger.
const maxNotes = 100

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// walk verifies one ledger, bundle by bundle.
type walk struct {
	*verification
	held   heldLedger
	report LedgerReport
	key    note.Verifier
	logID  [32]byte
	tree   *compact.Range // over the bundles that were verified
	epoch  uint64
	ended  bool
	seq    int64 // of the last bundle
	head   []byte
}

// next is the index after the last record that was verified.
func (w *walk) next() uint64 {
	if w.tree == nil {
		return 0
	}
	return w.tree.End()
}

// at is a fault at a record.
func (w *walk) at(index uint64, err error) error {
	return &Fault{Origin: w.held.origin, Index: index, What: err}
}

func (w *walk) run(ctx context.Context) error {
	w.logID, w.tree = ledger.LogID(w.held.origin), ranges.NewEmptyRange(0)
	if err := w.verifier(); err != nil {
		return err
	}
	for {
		b, err := w.bundle(ctx)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return err
		}
		if err := w.verify(ctx, b); err != nil {
			return err
		}
	}
	if err := w.finish(ctx); err != nil {
		return err
	}
	w.report.Ended = w.ended
	return w.notes(ctx)
}

// verifierOf reads a verifier key in its one form: C2SP signed-note's hash in small letters,
// of which note.NewVerifier takes others too.
func verifierOf(vkey string) (note.Verifier, error) {
	key, err := note.NewVerifier(vkey)
	if err == nil && !strings.HasPrefix(vkey, fmt.Sprintf("%s+%08x+", key.Name(), key.KeyHash())) {
		err = errors.New("it is not written in its one form")
	}
	return key, err
}

// verifier finds the key that the heads must be signed with.
func (w *walk) verifier() error {
	key, err := verifierOf(w.held.vkey)
	if err != nil {
		return fmt.Errorf("%w: verifier key: %w", ErrCorrupt, err)
	}
	if key.Name() != w.held.origin {
		return fmt.Errorf("%w: the verifier key is that of %q", ErrCorrupt, key.Name())
	}
	want, given := w.keys[w.held.origin]
	switch {
	case given && want.KeyHash() != key.KeyHash():
		return fmt.Errorf("%w: the store keeps another key of it than the one given", ErrCorrupt)
	case given:
		key = want
	case w.keys != nil:
		w.report.Notes = append(w.report.Notes, "no key was given: it is verified with the one that the store keeps")
	}
	w.key = key
	return nil
}

// keptBundle is a bundle as it is kept.
type keptBundle struct {
	seq, first, count, start, end int64
	head, leaves, payload         []byte
	records                       [][]byte
	whole                         error // why not all of the records could be taken apart
}

// bundle reads the next bundle; sql.ErrNoRows says that there is none.
func (w *walk) bundle(ctx context.Context) (*keptBundle, error) {
	b := &keptBundle{}
	var seq sql.NullInt64
	var size sql.NullInt64
	err := w.db.QueryRowContext(ctx, `SELECT b.seq, b.first, b.count, b.start_time, b.end_time, p.seq, substr(p.head, 1, ?4),
			substr(p.leaves, 1, ?5), length(p.records), CASE WHEN length(p.records) <= ?6 THEN p.records END
		FROM bundles AS b LEFT JOIN payloads AS p ON p.seq = b.seq
		WHERE b.ledger = ?1 AND b.first >= ?2 AND b.seq < ?3 ORDER BY b.first LIMIT 1`,
		w.held.id, signed(w.next()), w.verification.end, maxHead+1, (maxRecords+1)*32, maxPayload).
		Scan(&b.seq, &b.first, &b.count, &b.start, &b.end, &seq, &b.head, &b.leaves, &size, &b.payload)
	switch {
	case err != nil:
		return nil, err
	case signed(w.next()) != b.first:
		return nil, fmt.Errorf("%w: the next bundle begins at %d", ErrCorrupt, b.first)
	case b.seq <= w.seq:
		return nil, fmt.Errorf("%w: its bundle was stored before the one before", ErrCorrupt)
	case b.count < 1 || b.count > maxRecords || !seq.Valid || size.Int64 > maxPayload:
		return nil, fmt.Errorf("%w: the bundle's %d records are not there", ErrCorrupt, b.count)
	}
	b.records, b.whole = unpackRecords(b.payload, int(b.count))
	return b, nil
}

// verify verifies a bundle: its records by their bytes, the tree by the head, the index
// by the records. The first record that any of these says is bad is the fault.
func (w *walk) verify(ctx context.Context, b *keptBundle) error {
	decoded, fault := w.read(b)
	tree, err := w.grow(leavesOf(b.records))
	if err != nil {
		return err
	}
	if f, exact := w.covered(b, tree); f != nil && (fault == nil || exact && f.Index < fault.Index) {
		fault = f
	}
	if err := w.indexed(ctx, b, decoded); err != nil {
		var bad *Fault
		if !errors.As(err, &bad) || fault == nil || bad.Index < fault.Index {
			return err
		}
	}
	if fault != nil {
		return fault
	}
	last := decoded[len(decoded)-1]
	w.tree, w.seq, w.head, w.ended = tree, b.seq, b.head, last.GetKind() == writv1.RecordKind_RECORD_KIND_END
	w.report.Heads++
	w.report.Size = tree.End()
	root, err := tree.GetRootHash(nil)
	copy(w.report.Root[:], root)
	return err
}

// read reads the records of a bundle, up to the first that is bad.
func (w *walk) read(b *keptBundle) ([]*writv1.Record, *Fault) {
	var out []*writv1.Record
	for i, raw := range b.records {
		index := w.next() + uint64(i) //nolint:gosec // an index
		r, err := ledger.CheckRecord(raw, w.logID, index)
		if err == nil && r.GetEpoch() < w.epoch {
			err = fmt.Errorf("%w: of epoch %d, after %d", ledger.ErrRecord, r.GetEpoch(), w.epoch)
		}
		if err != nil {
			return out, &Fault{Origin: w.held.origin, Index: index, What: err}
		}
		w.start(r)
		if r.GetEpoch() > w.epoch {
			w.report.Epochs++
			w.epoch = r.GetEpoch()
		}
		out = append(out, r)
	}
	if b.whole != nil {
		return out, &Fault{Origin: w.held.origin, Index: w.next() + uint64(len(out)), What: b.whole}
	}
	return out, nil
}

// start notes an epoch that does not begin with one START. It is no fault: it takes the
// ledger's key to write one.
func (w *walk) start(r *writv1.Record) {
	begins, isStart := r.GetEpoch() > w.epoch, r.GetKind() == writv1.RecordKind_RECORD_KIND_START
	switch {
	case begins == isStart || len(w.report.Notes) >= maxNotes:
	case begins:
		w.report.Notes = append(w.report.Notes, fmt.Sprintf("record %d: epoch %d begins without a START", r.GetIndex(), r.GetEpoch()))
	default:
		w.report.Notes = append(w.report.Notes, fmt.Sprintf("record %d: a second START of epoch %d", r.GetIndex(), r.GetEpoch()))
	}
}

// grow is the tree with more leaves.
func (w *walk) grow(leaves []byte) (*compact.Range, error) {
	tree, err := ranges.NewRange(0, w.tree.End(), slices.Clone(w.tree.Hashes()))
	if err != nil {
		return nil, err
	}
	for leaf := range slices.Chunk(leaves, 32) {
		if err := tree.Append(leaf, nil); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// covered says whether the head of a bundle is signed, and is over the tree. Where it
// is not, the leaves that were kept tell, if they are what it is over, exactly which
// record is bad.
func (w *walk) covered(b *keptBundle, tree *compact.Range) (f *Fault, exact bool) {
	fault := func(index uint64, format string, args ...any) *Fault {
		return &Fault{Origin: w.held.origin, Index: index, What: fmt.Errorf(format, args...)}
	}
	end := w.next() + uint64(b.count) //nolint:gosec // a count
	head, err := ledger.OpenHead(b.head, w.key)
	if err != nil {
		return fault(end, "the head of size %d: %w", end, err), false
	}
	if head.Origin != w.held.origin || head.Size != end {
		return fault(end, "%w: it is of %q and size %d, want size %d", ledger.ErrHead, head.Origin, head.Size, end), false
	}
	leaves := leavesOf(b.records)
	bad := w.next() + uint64(firstDifference(leaves, b.leaves)) //nolint:gosec // an index
	switch {
	case gives(tree, head) && bytes.Equal(leaves, b.leaves):
		return nil, false
	case gives(tree, head):
		return fault(bad, "%w: its leaf is not the one kept", ErrCorrupt), true
	case len(b.leaves) != int(b.count)*32:
	default:
		if kept, err := w.grow(b.leaves); err == nil && gives(kept, head) {
			return fault(bad, "%w: its bytes are not those that the head of size %d signs", ledger.ErrRecord, end), true
		}
	}
	return fault(w.next(), "%w: the records from here to %d do not give the tree that is signed", ledger.ErrHead, end), false
}

// firstDifference is the number of the first leaf that differs.
func firstDifference(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n / 32
}

// gives says whether a tree is the one that a head is over.
func gives(tree *compact.Range, head ledger.Head) bool {
	root, err := tree.GetRootHash(nil)
	return err == nil && tree.End() == head.Size && bytes.Equal(root, head.Root[:])
}

// indexed holds the index against the records that could be read.
func (w *walk) indexed(ctx context.Context, b *keptBundle, decoded []*writv1.Record) error {
	kept, err := w.rows(ctx, b)
	if err != nil {
		return err
	}
	seq := b.seq
	find := func(ctx context.Context, id string) (subject, bool, error) {
		return scanSubject(w.find.QueryRowContext(ctx, []byte(id), w.held.id, seq))
	}
	var start, end int64
	for i, r := range decoded {
		want, err := rowOf(ctx, r, find)
		if err != nil {
			return w.at(r.GetIndex(), err)
		}
		got, there := kept[seq]
		switch {
		case !there:
			return w.at(r.GetIndex(), fmt.Errorf("%w: it is not in the index", ErrCorrupt))
		case got.ledger != w.held.id || got.row != want:
			return w.at(r.GetIndex(), fmt.Errorf("%w: the index says something else of it", ErrCorrupt))
		}
		if i == 0 {
			start, end = want.Time, want.Time
		}
		start, end = min(start, want.Time), max(end, want.Time)
		seq++
	}
	if b.whole == nil && len(decoded) == len(b.records) && (start != b.start || end != b.end) {
		return w.at(w.next(), fmt.Errorf("%w: the index says another time of its bundle", ErrCorrupt))
	}
	return nil
}

// keptRow is a row of the index.
type keptRow struct {
	ledger int64
	row
}

// rows reads the index rows of a bundle, by their place in the sequence.
func (w *walk) rows(ctx context.Context, b *keptBundle) (map[int64]keptRow, error) {
	rows, err := w.db.QueryContext(ctx, `SELECT seq, ledger, position, time, kind, coalesce(decision_id, x''), coalesce(tenant, ''),
			coalesce(reason, 0), coalesce(bundle, x''), `+subjectColumns+`
		FROM records WHERE seq >= ? AND seq < ?`, b.seq, b.seq+b.count)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := make(map[int64]keptRow, b.count)
	for rows.Next() {
		var seq int64
		var r keptRow
		columns := []any{&seq, &r.ledger, &r.Position, &r.Time, &r.Kind, &r.DecisionID, &r.Tenant, &r.Reason, &r.Bundle}
		if err := rows.Scan(append(columns, subjectFields(&r.subject)...)...); err != nil {
			return nil, err
		}
		out[seq] = r
	}
	return out, rows.Err()
}

// finish holds what the store says of the whole ledger against what was verified.
func (w *walk) finish(ctx context.Context) error {
	var bundles, rows int64
	err := w.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM bundles WHERE ledger = ?1 AND seq < ?2), (SELECT count(*) FROM records WHERE ledger = ?1 AND seq < ?2)`,
		w.held.id, w.end).Scan(&bundles, &rows)
	size := w.report.Size
	switch {
	case err != nil:
		return err
	case w.held.size < 1 || signed(size) != w.held.size:
		return fmt.Errorf("%w: %d records are there, %d are said to be held", ErrCorrupt, size, w.held.size)
	case !bytes.Equal(w.held.root, w.report.Root[:]) || !bytes.Equal(w.held.hashes, bytes.Join(w.tree.Hashes(), nil)):
		return fmt.Errorf("%w: the tree that is said to be held is not that of the records", ErrCorrupt)
	case !bytes.Equal(w.held.head, w.head) || w.held.epoch != signed(w.epoch):
		return fmt.Errorf("%w: the head or the epoch that is said to be held is not that of the last bundle", ErrCorrupt)
	case signed(w.report.Heads) != bundles:
		return fmt.Errorf("%w: %d bundles are there beside the %d that make up the ledger", ErrCorrupt, bundles-signed(w.report.Heads), w.report.Heads)
	case rows != w.held.size:
		return fmt.Errorf("%w: %d rows of the index for %d records", ErrCorrupt, rows, size)
	}
	return nil
}

// notes tells what does not pair. It is no fault: the order of both is the agent's.
func (w *walk) notes(ctx context.Context) error {
	for _, n := range []struct {
		what, query string
	}{
		{"an outcome without a decision", `SELECT position, decision_id FROM records AS r WHERE ledger = ?1 AND kind = 3 AND decision_id IS NOT NULL AND seq < ?2 AND NOT EXISTS
			(SELECT 1 FROM records AS d WHERE d.decision_id = r.decision_id AND d.ledger = ?1 AND d.kind = 2) ORDER BY seq LIMIT ?3`},
		{"a second decision", `SELECT max(position), decision_id FROM records WHERE ledger = ?1 AND kind = 2 AND decision_id IS NOT NULL AND seq < ?2
			GROUP BY decision_id HAVING count(*) > 1 ORDER BY 1 LIMIT ?3`},
		{"a second outcome", `SELECT max(position), decision_id FROM records WHERE ledger = ?1 AND kind = 3 AND decision_id IS NOT NULL AND seq < ?2
			GROUP BY decision_id HAVING count(*) > 1 ORDER BY 1 LIMIT ?3`},
	} {
		rows, err := w.db.QueryContext(ctx, n.query, w.held.id, w.end, maxNotes)
		if err != nil {
			return err
		}
		lines, err := collect(rows, func(rows *sql.Rows) (string, error) {
			var index int64
			var id []byte
			err := rows.Scan(&index, &id)
			return fmt.Sprintf("record %d: %s %x", index, n.what, id), err
		})
		if err != nil {
			return err
		}
		w.report.Notes = append(w.report.Notes, lines...)
	}
	return w.db.QueryRowContext(ctx, `SELECT count(*) FROM findings WHERE origin = ?`, w.held.origin).Scan(&w.report.Findings)
}
