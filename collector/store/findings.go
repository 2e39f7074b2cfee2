// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/writ-dev/writ/ledger/stream"
)

const (
	// findingsOfKind bounds how many findings of one kind a ledger has as rows.
	findingsOfKind = 16
	// maxFindings bounds how many rows there are in all.
	maxFindings = 1 << 16
	// maxStrangers bounds how many there are about keys of ledgers that are not held:
	// anybody can name a ledger, and is to leave room for what is found about those held.
	maxStrangers = 1 << 10
	maxKind      = 64
	maxDetail    = 1024
)

// Finding is something that is wrong with a ledger, with both heads as evidence.
type Finding struct {
	Origin string
	// Kind is what is wrong: the name of a stream.FindingKind, or of a kind of
	// collector/findings.
	Kind   string
	Detail string
	// HeldSize and HeldRoot are what was held, and HeldHead is the signed note of it,
	// where there is one: AddFinding looks for it where it is not given.
	HeldSize uint64
	HeldRoot []byte
	HeldHead []byte
	// Head is the signed note that disagrees, where there is one.
	Head []byte
	// FirstTime and Time are when it was found first and last.
	FirstTime, Time time.Time
	// Count is how often it was found. Where a ledger has many findings of a kind, those
	// that got no row of their own are counted with the newest that did.
	Count int
}

// AddFinding keeps a finding. The same one again (kind, what was held, the head that
// disagrees) raises its count. Time is the store's clock's where it is zero.
func (s *Store) AddFinding(ctx context.Context, f Finding) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	if f.Origin == "" || len(f.Origin) > maxOrigin || f.Kind == "" || len(f.Kind) > maxKind || len(f.HeldRoot) > 32 || len(f.Head) > maxHead || len(f.HeldHead) > maxHead {
		return fmt.Errorf("%w: a finding that is too long, or without origin or kind", ErrInvalid)
	}
	if f.Time.IsZero() {
		f.Time = s.clock()
	}
	f.Detail = cut(f.Detail, maxDetail)
	f.HeldRoot, f.HeldHead, f.Head = notNil(f.HeldRoot), notNil(f.HeldHead), notNil(f.Head)
	if err := s.writer.in(ctx, func(tx *sql.Tx) error { return addFinding(ctx, tx, f) }); err != nil {
		return fmt.Errorf("keep a finding about %s: %w", f.Origin, err)
	}
	s.announce()
	return nil
}

func addFinding(ctx context.Context, tx *sql.Tx, f Finding) error {
	counted, err := update(ctx, tx, `UPDATE findings SET count = count + 1, last_time = max(last_time, ?1)
		WHERE id = (SELECT id FROM findings WHERE origin = ?2 AND kind = ?3 AND held_size = ?4 AND held_root = ?5 AND head = ?6)`,
		f.Time.UnixNano(), f.Origin, f.Kind, signed(f.HeldSize), f.HeldRoot, f.Head)
	if err != nil || counted {
		return err
	}
	var alike, all int
	if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM findings WHERE origin = ? AND kind = ?), (SELECT count(*) FROM findings)`,
		f.Origin, f.Kind).Scan(&alike, &all); err != nil {
		return err
	}
	if alike >= findingsOfKind || alike > 0 && all >= maxFindings {
		_, err := update(ctx, tx, `UPDATE findings SET count = count + 1, last_time = max(last_time, ?1)
			WHERE id = (SELECT max(id) FROM findings WHERE origin = ?2 AND kind = ?3)`, f.Time.UnixNano(), f.Origin, f.Kind)
		return err
	}
	if all >= maxFindings {
		return ErrFindings
	}
	if counted, err := countStranger(ctx, tx, f); err != nil || counted {
		return err
	}
	return insertFinding(ctx, tx, f)
}

// countStranger counts a finding about the key of a ledger that is not held with the
// newest of its like, where there are many of them.
func countStranger(ctx context.Context, tx *sql.Tx, f Finding) (bool, error) {
	if f.Kind != stream.UnknownKey.String() {
		return false, nil
	}
	return update(ctx, tx, `WITH strangers AS (SELECT id FROM findings WHERE kind = ?2 AND origin NOT IN (SELECT origin FROM ledgers))
		UPDATE findings SET count = count + 1, last_time = max(last_time, ?1)
		WHERE id = (SELECT max(id) FROM strangers) AND (SELECT count(*) FROM strangers) >= ?3
		AND NOT EXISTS (SELECT 1 FROM ledgers WHERE origin = ?4)`, f.Time.UnixNano(), f.Kind, maxStrangers, f.Origin)
}

func insertFinding(ctx context.Context, tx *sql.Tx, f Finding) error {
	if len(f.HeldHead) == 0 {
		err := tx.QueryRowContext(ctx, `SELECT head, root FROM ledgers WHERE origin = ? AND size = ? AND root = ?`,
			f.Origin, signed(f.HeldSize), f.HeldRoot).Scan(&f.HeldHead, &f.HeldRoot)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	made, err := tx.ExecContext(ctx, `INSERT INTO findings (origin, kind, detail, held_size, held_root, held_head, head, first_time, last_time, count)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, 1)`,
		f.Origin, f.Kind, f.Detail, signed(f.HeldSize), f.HeldRoot, f.HeldHead, f.Head, f.Time.UnixNano())
	if err != nil {
		return err
	}
	id, err := made.LastInsertId()
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, addEntry, nil, id)
	return err
}

func update(ctx context.Context, tx *sql.Tx, query string, args ...any) (bool, error) {
	r, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// Findings lists what was found about a ledger, or about all where origin is empty, in
// the order of first finding.
func (s *Store) Findings(ctx context.Context, origin string) ([]Finding, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT origin, kind, detail, held_size, held_root, held_head, head, first_time, last_time, count
		FROM findings WHERE ?1 = '' OR origin = ?1 ORDER BY id`, origin)
	if err != nil {
		return nil, fmt.Errorf("list findings: %w", err)
	}
	out, err := collect(rows, func(rows *sql.Rows) (f Finding, err error) {
		var first, last int64
		err = rows.Scan(&f.Origin, &f.Kind, &f.Detail, &f.HeldSize, &f.HeldRoot, &f.HeldHead, &f.Head, &first, &last, &f.Count)
		f.FirstTime, f.Time = time.Unix(0, first), time.Unix(0, last)
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("list findings: %w", err)
	}
	return out, nil
}

// CountFindings says how many findings are kept of each kind.
func (s *Store) CountFindings(ctx context.Context) (map[string]int, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT kind, count(*) FROM findings GROUP BY kind`)
	if err != nil {
		return nil, fmt.Errorf("count findings: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := map[string]int{}
	for rows.Next() {
		var kind string
		var n int
		if err := rows.Scan(&kind, &n); err != nil {
			return nil, fmt.Errorf("count findings: %w", err)
		}
		out[kind] = n
	}
	return out, rows.Err()
}

// cut shortens a text to so many bytes of valid UTF-8.
func cut(text string, most int) string {
	if len(text) > most {
		text = text[:most]
	}
	return strings.ToValidUTF8(text, "")
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return bytes.Clone(b)
}
