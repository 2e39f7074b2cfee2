// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/store"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// chunk is how many records are taken from a store at a time. None has more than
	// 64 KiB.
	chunk = 128
	// settle is how long a watcher lets what is stored gather before it looks.
	settle = 20 * time.Millisecond
)

// Source is what is asked of a store.
type Source interface {
	List(ctx context.Context, s store.Selection) ([]store.Stored, error)
	ByDecision(ctx context.Context, decisionID []byte) ([]store.Stored, error)
	// Ledgers lists what is held, by origin.
	Ledgers(ctx context.Context) ([]store.Ledger, error)
	// Stored returns a channel that is closed when something is stored; nil where that
	// cannot be known, and the store is looked at from time to time.
	Stored() <-chan struct{}
}

// FromStore returns the Reader of a store that this process has open for writing.
func FromStore(s Source) Reader { return storeReader{s} }

// FromStoreDir returns the Reader of the store in a directory, beside a collector or
// without one. The store is opened for each look at it, and closed again: a collector is
// not kept from it, and what a collector stores meanwhile is seen.
func FromStoreDir(dir string) Reader { return storeReader{storeDir(dir)} }

// storeDir is the directory of a store, as a Source.
type storeDir string

func (d storeDir) List(ctx context.Context, sel store.Selection) (out []store.Stored, err error) {
	err = d.open(ctx, func(s *store.Store) error {
		out, err = s.List(ctx, sel)
		return err
	})
	return out, err
}

func (d storeDir) ByDecision(ctx context.Context, id []byte) (out []store.Stored, err error) {
	err = d.open(ctx, func(s *store.Store) error {
		out, err = s.ByDecision(ctx, id)
		return err
	})
	return out, err
}

func (d storeDir) Ledgers(ctx context.Context) (out []store.Ledger, err error) {
	err = d.open(ctx, func(s *store.Store) error {
		out, err = s.Ledgers(ctx)
		return err
	})
	return out, err
}

func (d storeDir) Stored() <-chan struct{} { return nil }

func (d storeDir) open(ctx context.Context, do func(*store.Store) error) error {
	s, err := store.OpenReadOnly(ctx, string(d))
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

type storeReader struct{ source Source }

// List returns a page of records, newest first.
func (r storeReader) List(ctx context.Context, req *writv1.ListRecordsRequest) (*writv1.ListRecordsResponse, error) {
	if err := errors.Join(check(req), checkFilter(req.GetFilter())); err != nil {
		return nil, err
	}
	c, err := newCursor("store", req.GetFilter())
	if err != nil {
		return nil, err
	}
	place, err := c.place(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	sel := store.Selection{Filter: req.GetFilter(), Before: int64(min(place, math.MaxInt64))} //nolint:gosec // bounded
	p := page{size: pageSize(req)}
	for {
		// One more than there is room for: it tells whether there is a next page.
		sel.Limit = min(p.size-len(p.records)+1, chunk)
		rows, err := r.source.List(ctx, sel)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if !p.add(recordOf(row)) {
				return &writv1.ListRecordsResponse{Records: p.records, NextPageToken: c.token(uint64(sel.Before))}, nil //nolint:gosec // from 1
			}
			sel.Before = row.Seq
		}
		if len(rows) < sel.Limit {
			return &writv1.ListRecordsResponse{Records: p.records}, nil
		}
	}
}

func recordOf(row store.Stored) *writv1.StoredRecord {
	return &writv1.StoredRecord{Origin: row.Origin, Record: row.Raw, ReceiveTime: timestamppb.New(row.ReceiveTime)}
}

// Get returns what is recorded of a decision.
func (r storeReader) Get(ctx context.Context, id string) ([]*writv1.StoredRecord, error) {
	raw, err := decodeID(id)
	if err != nil {
		return nil, err
	}
	rows, err := r.source.ByDecision(ctx, raw)
	p, full := page{size: maxOfDecision}, len(rows) >= maxOfDecision
	for _, row := range rows {
		full = !p.add(recordOf(row)) || full
	}
	return found(p.records, full, err)
}

// decodeID reads a decision's id.
func decodeID(id string) ([]byte, error) {
	if !decisionID.MatchString(id) {
		return nil, fmt.Errorf("%w: a decision id is 32 hexadecimal digits", ErrInvalid)
	}
	return hex.DecodeString(id)
}

// Watch gives out the records that are stored from now on. Nothing is kept for whoever
// reads slowly but what one look at the store gave.
func (r storeReader) Watch(ctx context.Context, filter *writv1.RecordFilter) (iter.Seq2[*writv1.StoredRecord, error], error) {
	if err := errors.Join(check(&writv1.WatchRecordsRequest{Filter: filter}), checkFilter(filter)); err != nil {
		return nil, err
	}
	last, err := r.newest(ctx)
	if err != nil {
		return nil, err
	}
	w := &storeWatch{storeReader: r, filter: filter, last: last}
	return func(yield func(*writv1.StoredRecord, error) bool) {
		for {
			stored := r.source.Stored()
			err := w.look(ctx, yield)
			if err == nil {
				err = pause(ctx, stored)
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

// newest is the number of the record that was stored last.
func (r storeReader) newest(ctx context.Context) (int64, error) {
	rows, err := r.source.List(ctx, store.Selection{Limit: 1})
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return rows[0].Seq, nil
}

// storeWatch is one watcher's place. It is one goroutine's.
type storeWatch struct {
	storeReader
	filter *writv1.RecordFilter
	last   int64
}

// look gives out what was stored since the last look.
func (w *storeWatch) look(ctx context.Context, yield func(*writv1.StoredRecord, error) bool) error {
	// Everything up to newest is there before it is looked for.
	newest, err := w.newest(ctx)
	if err != nil || newest <= w.last {
		return err
	}
	for {
		rows, err := w.source.List(ctx, store.Selection{Filter: w.filter, After: w.last, Forward: true, Limit: chunk})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !yield(recordOf(row), nil) {
				return errEnough
			}
			w.last = row.Seq
		}
		if len(rows) < chunk {
			w.last = max(w.last, newest)
			return nil
		}
	}
}

// pause waits for a signal and a little more, or where there is none for the time after
// which to look again.
func pause(ctx context.Context, signal <-chan struct{}) error {
	wait := pollInterval
	if signal != nil {
		wait = settle
		select {
		case <-signal:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
