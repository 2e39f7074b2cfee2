// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"time"
)

// loadBundle finds the bundle that a record lies in.
const loadBundle = `SELECT b.seq, b.count, l.origin, b.receive_time, length(p.records), CASE WHEN length(p.records) <= ?2 THEN p.records END
	FROM bundles AS b CROSS JOIN ledgers AS l ON l.id = b.ledger CROSS JOIN payloads AS p ON p.seq = b.seq
	WHERE b.seq = (SELECT max(seq) FROM bundles WHERE seq <= ?1)`

// loaded is a bundle that was read.
type loaded struct {
	seq, count int64
	origin     string
	time       time.Time
	records    [][]byte
}

func (b *loaded) has(seq int64) bool { return seq >= b.seq && seq < b.seq+b.count }

// load reads records. Neighbours are read together.
func (s *Store) load(ctx context.Context, seqs []int64) ([]Stored, error) {
	out := make([]Stored, 0, len(seqs))
	var at loaded
	for _, seq := range seqs {
		if !at.has(seq) {
			var err error
			if at, err = s.loadBundle(ctx, seq); err != nil {
				return nil, err
			}
		}
		// A copy: one record is not to keep its bundle in memory.
		raw := append([]byte(nil), at.records[seq-at.seq]...)
		out = append(out, Stored{Seq: seq, Origin: at.origin, Raw: raw, ReceiveTime: at.time})
	}
	return out, nil
}

func (s *Store) loadBundle(ctx context.Context, seq int64) (loaded, error) {
	var b loaded
	var received, bytes int64
	var payload []byte
	err := s.read.QueryRowContext(ctx, loadBundle, seq, maxPayload).Scan(&b.seq, &b.count, &b.origin, &received, &bytes, &payload)
	if err != nil {
		return b, fmt.Errorf("bundle of record %d: %w", seq, err)
	}
	if bytes > maxPayload || b.count < 1 || b.count > maxRecords || !b.has(seq) {
		return b, fmt.Errorf("%w: record %d is in no bundle", ErrCorrupt, seq)
	}
	b.time = time.Unix(0, received)
	if b.records, err = unpackRecords(payload, int(b.count)); err != nil {
		return b, fmt.Errorf("bundle of record %d: %w", seq, err)
	}
	return b, nil
}
