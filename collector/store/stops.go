// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// AddStopOrder keeps an operator's order to stop calls, or to lift the stop of that id,
// once each.
func (s *Store) AddStopOrder(ctx context.Context, id string, order *writv1.StopOrder) error {
	if s.writer == nil {
		return ErrReadOnly
	}
	text, err := canonical.Marshal(order)
	if err != nil {
		return fmt.Errorf("keep an order: %w: %w", ErrInvalid, err)
	}
	err = s.writer.in(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO stop_orders (stop, choice, expire_time, receive_time, body) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`, id, order.GetChoice(), order.GetStop().GetExpireTime().AsTime().UnixNano(), s.clock().UnixNano(), text)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep an order: %w", err)
	}
	return nil
}

// StopOrders returns the orders about stops that end after a time, in the sequence in
// which they were kept.
func (s *Store) StopOrders(ctx context.Context, after time.Time) ([]*writv1.StopOrder, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT body FROM stop_orders WHERE expire_time > ? ORDER BY id`, after.UnixNano())
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	orders, err := collect(rows, func(rows *sql.Rows) (*writv1.StopOrder, error) {
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		order := &writv1.StopOrder{}
		if err := canonical.Unmarshal(text, order); err != nil {
			return nil, fmt.Errorf("%w: an order: %w", ErrCorrupt, err)
		}
		return order, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	return orders, nil
}
