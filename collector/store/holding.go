// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/writ-dev/writ/ledger/stream"
)

// Ledger is what is held of one ledger.
type Ledger struct {
	Origin string
	// VerifierKey is the key that the ledger was first stored under, in the vkey form of
	// C2SP signed-note.
	VerifierKey string
	// Size is the number of records, and Root the root of the tree over them.
	Size uint64
	Root []byte
	// Head is the signed note of that size and root.
	Head []byte
	// FirstTime and LastTime are when the first and the last bundle were stored.
	FirstTime, LastTime time.Time
}

// Holding is what is held of a ledger, for a receiver to go on from: the zero holding
// but for Origin of one that is not known.
func (s *Store) Holding(ctx context.Context, origin string) (stream.Holding, error) {
	h := stream.Holding{Origin: origin}
	var hashes []byte
	err := s.read.QueryRowContext(ctx, `SELECT size, root, hashes, epoch FROM ledgers WHERE origin = ?`, origin).Scan(&h.Size, &h.Root, &hashes, &h.Epoch)
	if errors.Is(err, sql.ErrNoRows) {
		return h, nil
	}
	if err != nil {
		return stream.Holding{}, fmt.Errorf("holding of %s: %w", origin, err)
	}
	if h.Range, err = rangeOf(h.Size, hashes); err != nil {
		return stream.Holding{}, fmt.Errorf("holding of %s: %w", origin, err)
	}
	return h, nil
}

// rangeOf takes a compact range apart.
func rangeOf(size uint64, hashes []byte) ([][]byte, error) {
	n := rfc6962.DefaultHasher.Size()
	if size == 0 || len(hashes) != n*compact.RangeSize(0, size) {
		return nil, fmt.Errorf("%w: a compact range of %d bytes over %d records", ErrCorrupt, len(hashes), size)
	}
	return slices.Collect(slices.Chunk(hashes, n)), nil
}

// Ledgers lists what is held, by origin.
func (s *Store) Ledgers(ctx context.Context) ([]Ledger, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT origin, vkey, size, root, head, first_time, last_time FROM ledgers ORDER BY origin`)
	if err != nil {
		return nil, fmt.Errorf("list ledgers: %w", err)
	}
	out, err := collect(rows, func(rows *sql.Rows) (l Ledger, err error) {
		var first, last int64
		err = rows.Scan(&l.Origin, &l.VerifierKey, &l.Size, &l.Root, &l.Head, &first, &last)
		l.FirstTime, l.LastTime = time.Unix(0, first), time.Unix(0, last)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list ledgers: %w", err)
	}
	return out, nil
}

// collect reads all of what a query gives, and closes it.
func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) ([]T, error) {
	defer rows.Close() //nolint:errcheck // Err tells
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
