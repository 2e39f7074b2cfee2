// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// reindex makes the index of a store that an earlier version of this program wrote, from
// the records' own bytes, oldest first.
func reindex(ctx context.Context, tx *sql.Tx) error {
	for next := int64(1); ; {
		var seq, ledger, count int64
		var payload []byte
		err := tx.QueryRowContext(ctx, `SELECT b.seq, b.ledger, b.count, CASE WHEN length(p.records) <= ?2 THEN p.records END
			FROM bundles AS b JOIN payloads AS p ON p.seq = b.seq WHERE b.seq >= ?1 ORDER BY b.seq LIMIT 1`, next, maxPayload).
			Scan(&seq, &ledger, &count, &payload)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if count < 1 || count > maxRecords {
			return fmt.Errorf("%w: a bundle of %d records", ErrCorrupt, count)
		}
		records, err := unpackRecords(payload, int(count))
		if err != nil {
			return err
		}
		for i, raw := range records {
			if err := reindexOne(ctx, tx, seq+int64(i), ledger, raw); err != nil {
				return fmt.Errorf("record %d: %w", seq+int64(i), err)
			}
		}
		next = seq + count
	}
}

func reindexOne(ctx context.Context, tx *sql.Tx, seq, ledger int64, raw []byte) error {
	record := &writv1.Record{}
	if err := proto.Unmarshal(raw, record); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	r, err := rowOf(ctx, record, func(ctx context.Context, id string) (subject, bool, error) {
		return scanSubject(tx.QueryRowContext(ctx, storedSubject, []byte(id), ledger, seq))
	})
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `REPLACE INTO records VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`, append([]any{seq, ledger}, r.values()...)...)
	return err
}
