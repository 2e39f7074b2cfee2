// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
)

// maxDamage bounds how many lines Report.Damage has of each check.
const maxDamage = 100

// Verify verifies the store in a directory, offline and without changing it, while a
// collector writes it (what is there when it begins is verified) and while none does.
// It trusts no index: every ledger's records are read from their bytes again and held
// against their place; the tree over them is built, and held against every signed head
// that is kept; the signatures are verified with the key that the store keeps; and then
// the index must say what the bytes say, no more and no less. SQLite's own
// integrity_check runs too. The error says that the store could not be read; what is
// wrong with what was read stands in the report.
//
// The keys are the store's own. Whoever could write the file could make a store that
// verifies: VerifyWith holds it against keys from elsewhere. That nothing was cut off
// the end of the sequence, no store can prove by itself: compare each ledger's Size and
// Root with a head or an acknowledgement that was kept elsewhere.
func Verify(ctx context.Context, dir string) (*Report, error) {
	return VerifyWith(ctx, dir, nil)
}

// VerifyWith is Verify with the keys that ledgers are to have, by origin. A ledger that
// keys has no key for is verified with the one that the store keeps, and a note says so.
func VerifyWith(ctx context.Context, dir string, keys map[string]note.Verifier) (*Report, error) {
	s, err := OpenReadOnly(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer s.Close() //nolint:errcheck // nothing was written
	v := &verification{db: s.read, keys: keys, report: &Report{}}
	if err := v.run(ctx); err != nil {
		return nil, fmt.Errorf("verify store %s: %w", dir, err)
	}
	return v.report, nil
}

// verification is a run of Verify.
type verification struct {
	db     *sql.DB
	keys   map[string]note.Verifier
	report *Report
	find   *sql.Stmt // storedSubject
	end    int64     // the sequence is verified below it; what is stored meanwhile is not
}

// heldLedger is the row of a ledger.
type heldLedger struct {
	id, size, epoch    int64
	origin, vkey       string
	root, hashes, head []byte
}

func (v *verification) run(ctx context.Context) error {
	held, err := v.snapshot(ctx)
	if err != nil {
		return err
	}
	if v.find, err = v.db.PrepareContext(ctx, storedSubject); err != nil {
		return err
	}
	defer v.find.Close() //nolint:errcheck // nothing was written
	for _, check := range []func(context.Context) error{v.integrity, v.schema, v.tiles, v.counts, v.entries} {
		// What cannot be read is damage like any other, and ends only this check.
		if err := check(ctx); err != nil {
			v.damage("%v", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, l := range held {
		report, err := v.ledger(ctx, l)
		if err != nil {
			return err
		}
		v.report.Ledgers = append(v.report.Ledgers, report)
	}
	return nil
}

func (v *verification) damage(format string, args ...any) {
	v.report.Damage = append(v.report.Damage, fmt.Sprintf(format, args...))
}

// snapshot reads, at one moment, what is held and where the sequence ends. Nothing
// before that changes any more, so nothing of it need be kept from being written over.
func (v *verification) snapshot(ctx context.Context) ([]heldLedger, error) {
	tx, err := v.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	var last int64
	err = tx.QueryRowContext(ctx, `SELECT coalesce((SELECT seq + count FROM bundles ORDER BY seq DESC LIMIT 1), 1),
		max(coalesce((SELECT max(seq) FROM records), 0), coalesce((SELECT max(seq) FROM payloads), 0))`).Scan(&v.end, &last)
	if err != nil {
		return nil, err
	}
	if last >= v.end {
		v.damage("rows up to %d of the sequence, which ends before %d", last, v.end)
	}
	rows, err := tx.QueryContext(ctx, `SELECT id, size, epoch, origin, vkey, root, hashes, head FROM ledgers ORDER BY origin`)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(rows *sql.Rows) (l heldLedger, err error) {
		return l, rows.Scan(&l.id, &l.size, &l.epoch, &l.origin, &l.vkey, &l.root, &l.hashes, &l.head)
	})
}

// integrity has SQLite check its file.
func (v *verification) integrity(ctx context.Context) error {
	for _, pragma := range []string{
		fmt.Sprintf("PRAGMA integrity_check(%d)", maxDamage),
		fmt.Sprintf(`SELECT "table" || ': row ' || rowid || ' has no ' || parent FROM pragma_foreign_key_check LIMIT %d`, maxDamage),
	} {
		rows, err := v.db.QueryContext(ctx, pragma)
		if err != nil {
			return err
		}
		lines, err := collect(rows, func(rows *sql.Rows) (line string, err error) { return line, rows.Scan(&line) })
		if err != nil {
			return err
		}
		for _, line := range lines {
			if line != "ok" {
				v.damage("%s", line)
			}
		}
	}
	return nil
}

// schema makes sure that the tables are what the migrations make: another schema could
// show one thing to this program and another to the next.
func (v *verification) schema(ctx context.Context) error {
	fresh, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return err
	}
	defer fresh.Close() //nolint:errcheck // in memory
	fresh.SetMaxOpenConns(1)
	if err := migrate(ctx, fresh); err != nil {
		return err
	}
	want, err := objects(ctx, fresh)
	if err != nil {
		return err
	}
	got, err := objects(ctx, v.db)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		v.damage("the schema is not the one that version %d of a store has", len(migrations))
	}
	return nil
}

func objects(ctx context.Context, db *sql.DB) ([][4]string, error) {
	rows, err := db.QueryContext(ctx, `SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema
		WHERE name NOT LIKE 'sqlite\_stat%' ESCAPE '\' ORDER BY type, name LIMIT 1000`)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(rows *sql.Rows) (o [4]string, err error) {
		return o, rows.Scan(&o[0], &o[1], &o[2], &o[3])
	})
}

// tiles makes sure that the bundles tile the sequence: what was taken out leaves a hole.
func (v *verification) tiles(ctx context.Context) error {
	rows, err := v.db.QueryContext(ctx, `SELECT seq, count FROM bundles WHERE seq < ? ORDER BY seq`, v.end)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for next := int64(1); rows.Next(); {
		var seq, count int64
		if err := rows.Scan(&seq, &count); err != nil {
			return err
		}
		if seq != next || count < 1 || count > maxRecords {
			v.damage("a bundle of %d records stands at %d of the sequence, want %d", count, seq, next)
			return nil
		}
		next += count
	}
	return rows.Err()
}

// counts makes sure that there are no rows that belong to nothing.
func (v *verification) counts(ctx context.Context) error {
	for _, c := range []struct {
		what, query string
	}{
		{"index rows more than there are records", `SELECT max(count(*) - (?1 - 1), 0) FROM records WHERE seq < ?1`},
		{"records without a bundle", `SELECT count(*) FROM payloads AS p WHERE seq < ?1 AND NOT EXISTS (SELECT 1 FROM bundles AS b WHERE b.seq = p.seq)`},
		{"bundles without a ledger", `SELECT count(*) FROM bundles AS b WHERE seq < ?1 AND NOT EXISTS (SELECT 1 FROM ledgers AS l WHERE l.id = b.ledger)`},
	} {
		var n int64
		if err := v.db.QueryRowContext(ctx, c.query, v.end).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			v.damage("%d %s", n, c.what)
		}
	}
	return v.db.QueryRowContext(ctx, `SELECT count(*) FROM findings`).Scan(&v.report.Findings)
}

// ledger verifies one ledger. The error is the context's.
func (v *verification) ledger(ctx context.Context, held heldLedger) (LedgerReport, error) {
	w := &walk{verification: v, held: held, report: LedgerReport{Origin: held.origin, VerifierKey: held.vkey}}
	err := w.run(ctx)
	if ctx.Err() != nil {
		return LedgerReport{}, ctx.Err()
	}
	if err != nil && !errors.As(err, &w.report.Fault) {
		w.report.Fault = &Fault{Origin: held.origin, Index: w.next(), What: err}
	}
	return w.report, nil
}
