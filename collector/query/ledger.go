// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// windowBytes bounds what one pass over a ledger keeps for the pages to come.
	windowBytes = 64 << 20
	// pollInterval is how often files are looked at that somebody else writes.
	pollInterval = 200 * time.Millisecond
	// maxKey bounds the file of a verifier key.
	maxKey = 4096
)

// LedgerReader is the Reader of an agent's ledger directory, written by an agent or not.
// It reads what the key beside the ledger vouches for: that shows that the ledger is
// whole, not whose it is.
type LedgerReader struct {
	dir      string
	verifier note.Verifier
	keep     int // bytes that one pass keeps

	mu         sync.Mutex // guards what follows
	window     window
	incomplete error
}

// FromLedger returns the Reader of the ledger in a directory.
func FromLedger(dir string) (*LedgerReader, error) {
	verifier, err := LedgerKey(dir)
	if err != nil {
		return nil, err
	}
	return &LedgerReader{dir: dir, verifier: verifier, keep: windowBytes}, nil
}

// LedgerKey returns the key that stands beside a ledger.
func LedgerKey(dir string) (note.Verifier, error) {
	verifier, _, err := ledgerKey(dir)
	return verifier, err
}

// ledgerKey returns the key that stands beside a ledger, and its text.
func ledgerKey(dir string) (note.Verifier, string, error) {
	path := filepath.Join(dir, "log.vkey")
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", fmt.Errorf("read the ledger's key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKey {
		return nil, "", fmt.Errorf("read the ledger's key: %s is no key", path)
	}
	text, err := os.ReadFile(path) //nolint:gosec // the directory is the caller's
	if err != nil {
		return nil, "", fmt.Errorf("read the ledger's key: %w", err)
	}
	vkey := strings.TrimSpace(string(text))
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, "", fmt.Errorf("read the ledger's key in %s: %w", path, err)
	}
	return verifier, vkey, nil
}

// Incomplete says why the last pass over the ledger did not reach its end: a *ledger.Fault,
// or bytes that no signed head covers. Nil where it did.
func (r *LedgerReader) Incomplete() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.incomplete
}

// kept is a record of the ledger that a filter selected.
type kept struct {
	index uint64
	raw   []byte
}

// window is the newest records below a place that a filter selected, oldest first.
type window struct {
	cursor  cursor
	keep    int
	below   uint64 // the place
	records []kept
	bytes   int
	cut     bool // older ones were let go
}

// add takes the next record, and lets the oldest go when there are too many.
func (w *window) add(index uint64, raw []byte) {
	w.records, w.bytes = append(w.records, kept{index, raw}), w.bytes+len(raw)
	for w.bytes > w.keep {
		w.bytes -= len(w.records[0].raw)
		w.records[0].raw = nil
		w.records, w.cut = w.records[1:], true
	}
}

// List returns a page of records, newest first.
func (r *LedgerReader) List(ctx context.Context, req *writv1.ListRecordsRequest) (*writv1.ListRecordsResponse, error) {
	if err := errors.Join(check(req), checkFilter(req.GetFilter())); err != nil {
		return nil, err
	}
	c, err := newCursor("ledger "+r.verifier.Name(), req.GetFilter())
	if err != nil {
		return nil, err
	}
	place, err := c.place(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if place == 0 {
		place = math.MaxUint64
	}
	if !r.window.holds(c, place) || req.GetPageToken() == "" {
		if err := r.fill(ctx, window{cursor: c, keep: r.keep, below: place}, req.GetFilter()); err != nil {
			return nil, err
		}
	}
	return r.window.page(r.verifier.Name(), place, pageSize(req)), nil
}

// holds says whether the records right below a place are in the window.
func (w *window) holds(c cursor, place uint64) bool {
	return w.cursor == c && place <= w.below && (!w.cut || len(w.records) > 0 && w.records[0].index < place)
}

// fill reads the ledger into a new window. It is called with mu held.
func (r *LedgerReader) fill(ctx context.Context, w window, filter *writv1.RecordFilter) error {
	err := r.scan(ctx, filter, func(index uint64, raw []byte) error {
		if index < w.below {
			w.add(index, raw)
		}
		return nil
	})
	if err == nil {
		r.window = w
	}
	return err
}

// page takes records from the window.
func (w *window) page(origin string, place uint64, size int) *writv1.ListRecordsResponse {
	p, out := page{size: size}, &writv1.ListRecordsResponse{}
	i := sort.Search(len(w.records), func(i int) bool { return w.records[i].index >= place })
	for i > 0 && p.add(&writv1.StoredRecord{Origin: origin, Record: w.records[i-1].raw}) {
		i--
		place = w.records[i].index
	}
	if i > 0 || w.cut && place > 0 {
		out.NextPageToken = w.cursor.token(place)
	}
	out.Records = p.records
	return out
}

// scan gives the records that a filter selects to take, from the oldest on. What makes
// the ledger end before its end is kept as incomplete. It is called with mu held.
func (r *LedgerReader) scan(ctx context.Context, filter *writv1.RecordFilter, take func(uint64, []byte) error) error {
	in := ledger.NewDirReader(r.dir, r.verifier)
	selected, err := newMatcher(filter, r.verifier.Name())
	if err != nil {
		return err
	}
	err = in.Read(visitor(ctx, selected, take))
	var fault *ledger.Fault
	switch r.incomplete = nil; {
	case errors.As(err, &fault):
		r.incomplete = fault
		return nil
	case err == nil:
		r.incomplete = uncovered(in)
	}
	return err
}

// uncovered says what at the end of a ledger was not given out.
func uncovered(in *ledger.DirReader) error {
	if in.Uncovered() == 0 {
		return nil
	}
	return fmt.Errorf("%d bytes at the end are under no signed head", in.Uncovered())
}

// visitor gives on the records that a matcher selects.
func visitor(ctx context.Context, selected *matcher, take func(uint64, []byte) error) func(uint64, []byte) error {
	return func(index uint64, raw []byte) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		record := &writv1.Record{}
		if err := proto.Unmarshal(raw, record); err != nil { // canonical: it was verified
			return fmt.Errorf("record %d: %w", index, err)
		}
		ok, err := selected.match(record)
		if err != nil || !ok {
			return err
		}
		return take(index, raw)
	}
}

// Get returns what is recorded of a decision.
func (r *LedgerReader) Get(ctx context.Context, id string) ([]*writv1.StoredRecord, error) {
	want, err := decodeID(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, full := page{size: maxOfDecision}, false
	err = r.scan(ctx, nil, func(_ uint64, raw []byte) error {
		record := &writv1.Record{}
		if proto.Unmarshal(raw, record) == nil && string(record.GetDecisionId()) == string(want) {
			full = !p.add(&writv1.StoredRecord{Origin: r.verifier.Name(), Record: raw}) || full
		}
		return nil
	})
	return found(p.records, full, err)
}

// maxOfDecision is how many records of one decision are answered. An agent writes two.
const maxOfDecision = 1000

// found is the answer about a decision.
func found(records []*writv1.StoredRecord, full bool, err error) ([]*writv1.StoredRecord, error) {
	switch {
	case err != nil:
		return nil, err
	case full:
		return nil, fmt.Errorf("%w records of one decision", ErrTooMany)
	case len(records) == 0:
		return nil, ErrNotFound
	default:
		return records, nil
	}
}

// Watch gives out the records that are written from now on.
func (r *LedgerReader) Watch(ctx context.Context, filter *writv1.RecordFilter) (iter.Seq2[*writv1.StoredRecord, error], error) {
	if err := errors.Join(check(&writv1.WatchRecordsRequest{Filter: filter}), checkFilter(filter)); err != nil {
		return nil, err
	}
	in := ledger.NewDirReader(r.dir, r.verifier)
	selected, err := newMatcher(filter, r.verifier.Name())
	if err != nil {
		return nil, err
	}
	if err := in.Read(visitor(ctx, selected, func(uint64, []byte) error { return nil })); err != nil {
		return nil, err
	}
	return func(yield func(*writv1.StoredRecord, error) bool) {
		give := visitor(ctx, selected, func(_ uint64, raw []byte) error {
			if !yield(&writv1.StoredRecord{Origin: r.verifier.Name(), Record: raw}, nil) {
				return errEnough
			}
			return nil
		})
		for {
			err := in.Read(give)
			if err == nil {
				err = pause(ctx, nil)
			}
			if errors.Is(err, errEnough) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}, nil
}

// errEnough ends a pass whose caller wants no more.
var errEnough = errors.New("enough")
