// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// PutShare keeps what an agent's slice of a balance is, in place of what it was. When it
// returns nil that is durable.
func (s *Store) PutShare(ctx context.Context, balance string, held *writv1.HeldShare) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	text, err := canonical.Marshal(held)
	if err != nil {
		return fmt.Errorf("keep a slice: %w: %w", ErrInvalid, err)
	}
	err = s.writer.in(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO shares (balance, holder, window_end, body) VALUES (?, ?, ?, ?)
			ON CONFLICT (balance, holder) DO UPDATE SET window_end = excluded.window_end, body = excluded.body`,
			balance, held.GetHolder(), held.GetGrant().GetWindowEnd().AsTime().UnixNano(), text)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep a slice: %w", err)
	}
	return nil
}

// Shares returns the slices of windows that end after a time. Older ones are removed.
func (s *Store) Shares(ctx context.Context, after time.Time) ([]*writv1.HeldShare, error) {
	if s.writer != nil {
		err := s.writer.in(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM shares WHERE window_end <= ?`, after.UnixNano())
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("remove slices: %w", err)
		}
	}
	rows, err := s.read.QueryContext(ctx, `SELECT body FROM shares WHERE window_end > ?`, after.UnixNano())
	if err != nil {
		return nil, fmt.Errorf("list slices: %w", err)
	}
	held, err := collect(rows, func(rows *sql.Rows) (*writv1.HeldShare, error) {
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		share := &writv1.HeldShare{}
		if err := canonical.Unmarshal(text, share); err != nil {
			return nil, fmt.Errorf("%w: a slice: %w", ErrCorrupt, err)
		}
		return share, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list slices: %w", err)
	}
	return held, nil
}

// LedgerFrom calls f with each record that is held of a ledger from an index on, in the
// ledger's order, until it fails.
func (s *Store) LedgerFrom(ctx context.Context, origin string, from uint64, f func(*writv1.Record) error) error {
	for {
		first, records, err := s.bundleAt(ctx, origin, from)
		if err != nil || records == nil {
			return err
		}
		for i, raw := range records {
			if index := first + uint64(i); index < from { //nolint:gosec // an index
				continue
			}
			record := &writv1.Record{}
			if err := canonical.Unmarshal(raw, record); err != nil {
				return fmt.Errorf("%w: a record of %s: %w", ErrCorrupt, origin, err)
			}
			if err := f(record); err != nil {
				return err
			}
		}
		from = first + uint64(len(records))
	}
}

// bundleAt returns the records of the bundle that holds an index of a ledger, and where it
// begins; nil where none does.
func (s *Store) bundleAt(ctx context.Context, origin string, index uint64) (first uint64, records [][]byte, err error) {
	var count int
	var payload []byte
	err = s.read.QueryRowContext(ctx, `SELECT b.first, b.count, p.records FROM bundles b
		JOIN ledgers l ON l.id = b.ledger JOIN payloads p ON p.seq = b.seq
		WHERE l.origin = ?1 AND b.first <= ?2 AND b.first + b.count > ?2 ORDER BY b.first DESC LIMIT 1`, origin, signed(index)).Scan(&first, &count, &payload)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read %s at %d: %w", origin, index, err)
	}
	if records, err = unpackRecords(payload, count); err != nil {
		return 0, nil, fmt.Errorf("read %s at %d: %w", origin, index, err)
	}
	return first, records, nil
}
