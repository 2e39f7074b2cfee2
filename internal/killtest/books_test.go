// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"database/sql"
	"testing"

	_ "modernc.org/sqlite" // the database driver "sqlite"
)

// effect is a refund that the payments service booked.
type effect struct {
	id                        int64
	tenant, payment, currency string
	minor                     int64
	reason, decision, key     string
}

// effectsSince reads the books of the service while it runs.
func effectsSince(t *testing.T, path string, id int64) []effect {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatalf("open the books: %v", err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `
		SELECT id, tenant, payment_id, currency, minor, reason, coalesce(decision_id, ''), coalesce(idempotency_key, '')
		FROM refunds WHERE id > ? ORDER BY id`, id)
	if err != nil {
		t.Fatalf("read the books: %v", err)
	}
	defer rows.Close()
	var found []effect
	for rows.Next() {
		var e effect
		if err := rows.Scan(&e.id, &e.tenant, &e.payment, &e.currency, &e.minor, &e.reason, &e.decision, &e.key); err != nil {
			t.Fatalf("read the books: %v", err)
		}
		found = append(found, e)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("read the books: %v", err)
	}
	return found
}
