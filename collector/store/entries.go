// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ErrNoDecision says that no decision with an id is stored.
var ErrNoDecision = errors.New("no such decision is stored")

// maxEntries bounds how many entries are read at once.
const maxEntries = 256

// addEntry gives what was stored its place in the collector's log, in the transaction
// that stores it: an entry's index is known before the log has it, and never changes.
const addEntry = `INSERT INTO entries (position, bundle, finding) VALUES ((SELECT coalesce(max(position) + 1, 0) FROM entries), ?, ?)`

// entryColumns are what an entry is made of: a bundle's head, or a finding without what
// changes of it.
const entryColumns = `SELECT e.position, b.receive_time, p.head, f.first_time, f.origin, f.kind, f.detail, f.held_size, f.held_root, f.held_head, f.head
	FROM entries AS e LEFT JOIN bundles AS b ON b.seq = e.bundle LEFT JOIN payloads AS p ON p.seq = e.bundle LEFT JOIN findings AS f ON f.id = e.finding
	WHERE e.position >= ? ORDER BY e.position LIMIT ?`

// EntryCount is how many entries the collector's log is to have: one for each bundle that
// was stored, and one for each finding.
func (s *Store) EntryCount(ctx context.Context) (uint64, error) {
	var n uint64
	err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(position) + 1, 0) FROM entries`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count the log's entries: %w", err)
	}
	return n, nil
}

// Entries are entries of the collector's log from an index on, in order: canonical bytes of
// writ.v1.LogEntry, at most so many and never more than 256. They are the same each time.
func (s *Store) Entries(ctx context.Context, from uint64, most int) ([][]byte, error) {
	rows, err := s.read.QueryContext(ctx, entryColumns, signed(from), min(most, maxEntries))
	if err != nil {
		return nil, fmt.Errorf("entries of the log from %d: %w", from, err)
	}
	next := from
	out, err := collect(rows, func(rows *sql.Rows) ([]byte, error) {
		position, entry, err := scanEntry(rows)
		if err == nil && position != next {
			err = fmt.Errorf("%w: entry %d of the log is missing", ErrCorrupt, next)
		}
		if err != nil {
			return nil, err
		}
		next++
		return canonical.Marshal(entry)
	})
	if err != nil {
		return nil, fmt.Errorf("entries of the log from %d: %w", from, err)
	}
	return out, nil
}

func scanEntry(rows *sql.Rows) (position uint64, entry *writv1.LogEntry, err error) {
	var received, found, size sql.NullInt64
	var origin, kind, detail sql.NullString
	var head []byte
	f := &writv1.LedgerFinding{}
	if err := rows.Scan(&position, &received, &head, &found, &origin, &kind, &detail, &size, &f.HeldRoot, &f.HeldHead, &f.Head); err != nil {
		return 0, nil, err
	}
	switch {
	case received.Valid && len(head) > 0 && !found.Valid:
		return position, &writv1.LogEntry{TimeUnixNs: uint64(received.Int64), What: &writv1.LogEntry_Head{Head: head}}, nil //nolint:gosec // after 1970
	case found.Valid && !received.Valid:
		f.Origin, f.Kind, f.Detail, f.HeldSize = origin.String, kind.String, detail.String, uint64(size.Int64)              //nolint:gosec // the bits are the number
		return position, &writv1.LogEntry{TimeUnixNs: uint64(found.Int64), What: &writv1.LogEntry_Finding{Finding: f}}, nil //nolint:gosec // after 1970
	default:
		return 0, nil, fmt.Errorf("%w: entry %d of the log is of nothing that is stored", ErrCorrupt, position)
	}
}

// entries makes sure that everything that was stored has its place in the log.
func (v *verification) entries(ctx context.Context) error {
	for _, c := range []struct {
		what, query string
	}{
		{"bundles that are not in the log", `SELECT count(*) FROM bundles AS b WHERE NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.bundle = b.seq)`},
		{"findings that are not in the log", `SELECT count(*) FROM findings AS f WHERE NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.finding = f.id)`},
		{"entries missing from the log", `SELECT coalesce(max(position) + 1, 0) - count(*) FROM entries`},
	} {
		var n int64
		if err := v.db.QueryRowContext(ctx, c.query).Scan(&n); err != nil {
			return err
		}
		if n != 0 {
			v.damage("%d %s", n, c.what)
		}
	}
	return nil
}

// EntryOf is the index in the log of the entry whose head was the first over the decision
// with an id. ErrNoDecision says that none is stored.
func (s *Store) EntryOf(ctx context.Context, decisionID []byte) (uint64, error) {
	var position uint64
	err := s.read.QueryRowContext(ctx, `SELECT e.position FROM records AS r JOIN entries AS e ON e.bundle = (SELECT max(seq) FROM bundles WHERE seq <= r.seq)
		WHERE r.decision_id = ? AND r.kind = ? ORDER BY r.seq LIMIT 1`, decisionID, decisionKind).Scan(&position)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, ErrNoDecision
	}
	if err != nil {
		return 0, fmt.Errorf("entry of a decision: %w", err)
	}
	return position, nil
}
