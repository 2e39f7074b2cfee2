// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/transparency-dev/merkle/compact"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
)

// maxOrigin bounds the name of a ledger, in bytes, as ledger_service.proto does.
const maxOrigin = 512

// rowsAtOnce is how many index rows one statement inserts: it spares most of what a
// statement costs, and stays below SQLite's bound on parameters.
const rowsAtOnce = 32

// rowColumns are the columns of an index row.
const rowColumns = 18

// writer is the one connection that writes, with what it does at each Put.
type writer struct {
	db                                *sql.DB
	held, last, subject               *sql.Stmt
	addLedger, moveLedger             *sql.Stmt
	addBundle, addPayload, addR, addN *sql.Stmt
	addEntry                          *sql.Stmt
}

func newWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	w := &writer{db: db}
	row := "(" + strings.Repeat("?,", rowColumns-1) + "?)"
	for _, p := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&w.held, `SELECT id, vkey, size, root FROM ledgers WHERE origin = ?`},
		{&w.last, `SELECT seq + count FROM bundles ORDER BY seq DESC LIMIT 1`},
		{&w.subject, storedSubject},
		{&w.addLedger, `INSERT INTO ledgers (origin, vkey, size, root, hashes, epoch, head, first_time, last_time)
			VALUES (?1, ?2, 0, x'', x'', 0, x'', ?3, ?3)`},
		{&w.moveLedger, `UPDATE ledgers SET size = ?2, root = ?3, hashes = ?4, epoch = ?5, head = ?6, last_time = ?7
			WHERE id = ?1 AND size = ?8`},
		{&w.addBundle, `INSERT INTO bundles (seq, ledger, first, count, start_time, end_time, receive_time) VALUES (?, ?, ?, ?, ?, ?, ?)`},
		{&w.addPayload, `INSERT INTO payloads (seq, head, leaves, records) VALUES (?, ?, ?, ?)`},
		{&w.addEntry, addEntry},
		{&w.addR, `INSERT INTO records VALUES ` + row},
		{&w.addN, `INSERT INTO records VALUES ` + strings.Repeat(row+",", rowsAtOnce-1) + row},
	} {
		var err error
		if *p.to, err = db.PrepareContext(ctx, p.query); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// close closes the statements with the connection.
func (w *writer) close() error { return w.db.Close() }

// in runs f in a transaction, which is durable when in returns nil.
func (w *writer) in(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Put stores what a receiver accepted that went on from a holding, whole or not at all,
// durably: when it returns nil, a.Holding may be acknowledged. Nothing is written where
// a has no records, or was stored already. It fails with ErrConflict where the ledger is
// no longer at from, with ErrKey where it was first stored under another key than vkey,
// which MUST be the one that verified a.Head. After an error the caller reads the
// holding again: a commit that failed late may stand.
func (s *Store) Put(ctx context.Context, from stream.Holding, a stream.Accepted, vkey string) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	if err := checkAccepted(from, a); err != nil {
		return err
	}
	p := &put{writer: s.writer, from: from, a: a, vkey: vkey, now: s.clock().UnixNano()}
	if err := s.writer.in(ctx, func(tx *sql.Tx) error { return p.run(ctx, tx) }); err != nil {
		return fmt.Errorf("store %d records of %s from %d: %w", len(a.Records), from.Origin, a.First, err)
	}
	if p.stored {
		s.announce()
	}
	return nil
}

// checkAccepted makes sure that a is of one piece and goes on from from. What is in it
// was verified by the receiver.
func checkAccepted(from stream.Holding, a stream.Accepted) error {
	n := uint64(len(a.Records))
	switch {
	case a.Origin == "" || len(a.Origin) > maxOrigin || a.Origin != from.Origin:
		return fmt.Errorf("%w: a bundle of %q after %q", ErrInvalid, a.Origin, from.Origin)
	case a.First != from.Size || a.Size > math.MaxInt64 || a.Size < from.Size || a.Size-from.Size != n:
		return fmt.Errorf("%w: %d records from %d to %d after %d", ErrInvalid, n, a.First, a.Size, from.Size)
	case n > maxRecords || len(a.Decoded) != len(a.Records):
		return fmt.Errorf("%w: %d records, %d of them read", ErrInvalid, n, len(a.Decoded))
	case n > 0 && (len(a.Head) == 0 || len(a.Head) > maxHead || len(a.Root) != 32):
		return fmt.Errorf("%w: a head of %d bytes, a root of %d", ErrInvalid, len(a.Head), len(a.Root))
	case n > 0 && len(a.Range) != compact.RangeSize(0, a.Size):
		return fmt.Errorf("%w: a compact range of %d hashes over %d records", ErrInvalid, len(a.Range), a.Size)
	}
	for i, r := range a.Records {
		if len(r) == 0 || len(r) > ledger.MaxRecordBytes {
			return fmt.Errorf("%w: record %d has %d bytes", ErrInvalid, a.First+uint64(i), len(r)) //nolint:gosec // an index
		}
	}
	return nil
}

// put is one Put.
type put struct {
	*writer
	from   stream.Holding
	a      stream.Accepted
	vkey   string
	now    int64
	ledger int64
	seq    int64 // of the first record
	stored bool
}

func (p *put) run(ctx context.Context, tx *sql.Tx) error {
	done, err := p.compare(ctx, tx)
	if err != nil || done {
		return err
	}
	if p.seq, err = p.next(ctx, tx); err != nil {
		return err
	}
	rows, err := p.rows(ctx, tx)
	if err != nil {
		return err
	}
	if err := p.bundle(ctx, tx, rows); err != nil {
		return err
	}
	if err := p.index(ctx, tx, rows); err != nil {
		return err
	}
	p.stored = true
	return p.move(ctx, tx)
}

// compare holds what the caller goes on from against what is held, under the lock that
// the transaction has. It is done where there is nothing to store.
func (p *put) compare(ctx context.Context, tx *sql.Tx) (done bool, err error) {
	var held struct {
		id, size int64
		vkey     string
		root     []byte
	}
	err = tx.StmtContext(ctx, p.held).QueryRowContext(ctx, p.from.Origin).Scan(&held.id, &held.vkey, &held.size, &held.root)
	if errors.Is(err, sql.ErrNoRows) {
		return p.first(ctx, tx)
	}
	if err != nil {
		return false, err
	}
	p.ledger = held.id
	is := func(h stream.Holding) bool {
		return held.size == signed(h.Size) && (h.Size == 0 || bytes.Equal(held.root, h.Root))
	}
	switch {
	case held.vkey != p.vkey:
		return false, ErrKey
	case is(p.a.Holding):
		return true, nil
	case !is(p.from):
		return false, fmt.Errorf("%w: it has %d records", ErrConflict, held.size)
	}
	return false, nil
}

// first makes the ledger, and so binds it to its key.
func (p *put) first(ctx context.Context, tx *sql.Tx) (done bool, err error) {
	if p.from.Size > 0 {
		return false, fmt.Errorf("%w: it is not held", ErrConflict)
	}
	if len(p.a.Records) == 0 {
		return true, nil
	}
	key, err := verifierOf(p.vkey)
	if err != nil {
		return false, fmt.Errorf("%w: verifier key: %w", ErrInvalid, err)
	}
	if key.Name() != p.from.Origin {
		return false, fmt.Errorf("%w: the key is that of %q", ErrInvalid, key.Name())
	}
	made, err := tx.StmtContext(ctx, p.addLedger).ExecContext(ctx, p.from.Origin, p.vkey, p.now)
	if err != nil {
		return false, err
	}
	p.ledger, err = made.LastInsertId()
	return false, err
}

// next is the next number of the sequence.
func (p *put) next(ctx context.Context, tx *sql.Tx) (int64, error) {
	var next int64
	err := tx.StmtContext(ctx, p.last).QueryRowContext(ctx).Scan(&next)
	if errors.Is(err, sql.ErrNoRows) {
		return 1, nil
	}
	return next, err
}

// rows are the index rows of the records. The decision of an outcome stands in the same
// bundle or is stored.
func (p *put) rows(ctx context.Context, tx *sql.Tx) ([]row, error) {
	out := make([]row, len(p.a.Decoded))
	here := map[string]subject{}
	find := func(ctx context.Context, id string) (subject, bool, error) {
		stored, known, err := scanSubject(tx.StmtContext(ctx, p.subject).QueryRowContext(ctx, []byte(id), p.ledger, p.seq))
		if err != nil || known {
			return stored, known, err
		}
		found, known := here[id]
		return found, known, nil
	}
	for i, r := range p.a.Decoded {
		var err error
		if out[i], err = rowOf(ctx, r, find); err != nil {
			return nil, err
		}
		if _, known := here[out[i].DecisionID]; !known && out[i].Kind == decisionKind {
			here[out[i].DecisionID] = out[i].subject
		}
	}
	return out, nil
}

func (p *put) bundle(ctx context.Context, tx *sql.Tx, rows []row) error {
	start, end := rows[0].Time, rows[0].Time
	for _, r := range rows {
		start, end = min(start, r.Time), max(end, r.Time)
	}
	if _, err := tx.StmtContext(ctx, p.addBundle).ExecContext(ctx, p.seq, p.ledger, signed(p.a.First), len(rows), start, end, p.now); err != nil {
		return err
	}
	if _, err := tx.StmtContext(ctx, p.addPayload).ExecContext(ctx, p.seq, p.a.Head, leavesOf(p.a.Records), packRecords(p.a.Records)); err != nil {
		return err
	}
	_, err := tx.StmtContext(ctx, p.addEntry).ExecContext(ctx, p.seq, nil)
	return err
}

// index inserts the rows, as many at once as there is a statement for.
func (p *put) index(ctx context.Context, tx *sql.Tx, rows []row) error {
	one, many := tx.StmtContext(ctx, p.addR), tx.StmtContext(ctx, p.addN)
	args := make([]any, 0, rowsAtOnce*rowColumns)
	for i := 0; i < len(rows); {
		stmt, n := one, 1
		if len(rows)-i >= rowsAtOnce {
			stmt, n = many, rowsAtOnce
		}
		args = args[:0]
		for j := i; j < i+n; j++ {
			args = append(append(args, p.seq+int64(j), p.ledger), rows[j].values()...)
		}
		if _, err := stmt.ExecContext(ctx, args...); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// move makes a's holding what is held.
func (p *put) move(ctx context.Context, tx *sql.Tx) error {
	moved, err := tx.StmtContext(ctx, p.moveLedger).ExecContext(ctx, p.ledger,
		signed(p.a.Size), p.a.Root, bytes.Join(p.a.Range, nil), signed(p.a.Epoch), p.a.Head, p.now, signed(p.from.Size))
	if err != nil {
		return err
	}
	if n, err := moved.RowsAffected(); err != nil || n != 1 {
		return errors.Join(ErrConflict, err)
	}
	return nil
}
