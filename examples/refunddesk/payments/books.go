// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	_ "modernc.org/sqlite" // the database driver "sqlite"
)

// schema is the books. A refund is one row; (tenant, idempotency_key) makes a
// repeat the same refund, and decision_id makes a decision worth one refund.
const schema = `
CREATE TABLE IF NOT EXISTS payments (
	tenant         TEXT NOT NULL,
	payment_id     TEXT NOT NULL,
	currency       TEXT NOT NULL,
	minor          INTEGER NOT NULL CHECK (minor > 0),
	customer_email TEXT NOT NULL,
	card_number    TEXT NOT NULL,
	PRIMARY KEY (tenant, payment_id)
) STRICT;
CREATE TABLE IF NOT EXISTS refunds (
	id              INTEGER PRIMARY KEY AUTOINCREMENT,
	tenant          TEXT NOT NULL,
	payment_id      TEXT NOT NULL,
	currency        TEXT NOT NULL,
	minor           INTEGER NOT NULL CHECK (minor > 0),
	reason          TEXT NOT NULL,
	customer_email  TEXT NOT NULL,
	decision_id     TEXT UNIQUE,
	idempotency_key TEXT,
	create_time     TEXT NOT NULL,
	UNIQUE (tenant, idempotency_key),
	FOREIGN KEY (tenant, payment_id) REFERENCES payments (tenant, payment_id)
) STRICT;`

var (
	errNoPayment = errors.New("there is no such payment")
	errTooMuch   = errors.New("more than what is left of the payment")
	errCurrency  = errors.New("the payment is in another currency")
	errKeyReused = errors.New("the idempotency key was used for another refund")
)

type money struct {
	Currency string `json:"currency"`
	Minor    int64  `json:"minor"`
}

type payment struct {
	Tenant        string `json:"tenant"`
	PaymentID     string `json:"payment_id"`
	Amount        money  `json:"amount"`
	RefundedMinor int64  `json:"refunded_minor"`
	CustomerEmail string `json:"customer_email"`
	CardNumber    string `json:"card_number"`
}

type refund struct {
	id                     int64
	tenant, paymentID      string
	amount                 money
	reason, customerEmail  string
	decisionID, repeatable string // repeatable is the idempotency key
}

// books is the database. Its methods may be called by several goroutines.
type books struct{ db *sql.DB }

func openBooks(ctx context.Context, path string) (*books, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	// One connection writes; SQLite would make a second one wait anyway.
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &books{db: db}, nil
}

func (b *books) close() { _ = b.db.Close() }

func (b *books) ping(ctx context.Context) error { return b.db.PingContext(ctx) }

func (b *books) seed(ctx context.Context, payments []payment) error {
	for _, p := range payments {
		_, err := b.db.ExecContext(ctx, `INSERT OR IGNORE INTO payments VALUES (?, ?, ?, ?, ?, ?)`,
			p.Tenant, p.PaymentID, p.Amount.Currency, p.Amount.Minor, p.CustomerEmail, p.CardNumber)
		if err != nil {
			return fmt.Errorf("payment %s: %w", p.PaymentID, err)
		}
	}
	return nil
}

func (b *books) payment(ctx context.Context, tenant, id string) (*payment, error) {
	return queryPayment(ctx, b.db, tenant, id)
}

type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func queryPayment(ctx context.Context, from rowQuerier, tenant, id string) (*payment, error) {
	p := &payment{Tenant: tenant, PaymentID: id}
	err := from.QueryRowContext(ctx, `
		SELECT currency, minor, customer_email, card_number,
			(SELECT coalesce(sum(minor), 0) FROM refunds r WHERE r.tenant = p.tenant AND r.payment_id = p.payment_id)
		FROM payments p WHERE tenant = ? AND payment_id = ?`, tenant, id).
		Scan(&p.Amount.Currency, &p.Amount.Minor, &p.CustomerEmail, &p.CardNumber, &p.RefundedMinor)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errNoPayment
	}
	return p, err
}

// issue books the refund, or finds the one that its idempotency key belongs to,
// and returns its id and the payment.
func (b *books) issue(ctx context.Context, r *refund) (int64, *payment, error) {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = tx.Rollback() }()
	p, err := queryPayment(ctx, tx, r.tenant, r.paymentID)
	if err != nil {
		return 0, nil, err
	}
	if r.repeatable != "" {
		if id, err := earlier(ctx, tx, r); err != nil || id != 0 {
			return id, p, err
		}
	}
	switch {
	case p.Amount.Currency != r.amount.Currency:
		return 0, nil, errCurrency
	case r.amount.Minor > p.Amount.Minor-p.RefundedMinor:
		return 0, nil, errTooMuch
	}
	result, err := tx.ExecContext(ctx, `
		INSERT INTO refunds (tenant, payment_id, currency, minor, reason, customer_email, decision_id, idempotency_key, create_time)
		VALUES (?, ?, ?, ?, ?, ?, nullif(?, ''), nullif(?, ''), ?)`,
		r.tenant, r.paymentID, r.amount.Currency, r.amount.Minor, r.reason, r.customerEmail, r.decisionID, r.repeatable,
		time.Now().UTC().Format(time.RFC3339Nano))
	if err != nil {
		return 0, nil, fmt.Errorf("book the refund: %w", err)
	}
	id, err := result.LastInsertId()
	if err != nil {
		return 0, nil, err
	}
	return id, p, tx.Commit()
}

// earlier returns the refund that was booked under the key, 0 if none was.
func earlier(ctx context.Context, tx *sql.Tx, r *refund) (int64, error) {
	var was refund
	err := tx.QueryRowContext(ctx, `SELECT id, payment_id, currency, minor FROM refunds WHERE tenant = ? AND idempotency_key = ?`,
		r.tenant, r.repeatable).Scan(&was.id, &was.paymentID, &was.amount.Currency, &was.amount.Minor)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case err != nil:
		return 0, err
	case was.paymentID != r.paymentID || was.amount != r.amount:
		return 0, errKeyReused
	}
	return was.id, nil
}
