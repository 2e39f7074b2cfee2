// SPDX-License-Identifier: Apache-2.0

// The test is of package main, whose API is HTTP: it stands inside the package
// because a command cannot be imported.
package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func desk(t *testing.T) (http.Handler, *books) {
	t.Helper()
	books, err := openBooks(t.Context(), filepath.Join(t.TempDir(), "payments.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(books.close)
	if err := books.seed(t.Context(), []payment{{
		Tenant: "acme", PaymentID: "pay_1001", Amount: money{"EUR", 10000}, CustomerEmail: "c@acme.example", CardNumber: "4111111111111111",
	}}); err != nil {
		t.Fatal(err)
	}
	return newAPI(books, nil), books
}

func post(handler http.Handler, tenant, key, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, "/v1/tenants/"+tenant+"/refunds", strings.NewReader(body))
	if key != "" {
		request.Header.Set(headerIdempotency, key)
	}
	response := httptest.NewRecorder()
	handler.ServeHTTP(response, request)
	return response
}

func count(t *testing.T, b *books) (refunds, minor int64) {
	t.Helper()
	if err := b.db.QueryRow(`SELECT count(*), coalesce(sum(minor), 0) FROM refunds`).Scan(&refunds, &minor); err != nil {
		t.Fatal(err)
	}
	return refunds, minor
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	const good = `{"payment_id":"pay_1001","amount":{"currency":"EUR","minor":4000}}`
	for name, test := range map[string]struct {
		tenant, body string
		status       int
		booked       int64
	}{
		"a refund within the payment is booked":        {"acme", good, http.StatusOK, 1},
		"a payment of another tenant is not found":     {"globex", good, http.StatusNotFound, 0},
		"more than the payment is refused":             {"acme", strings.Replace(good, "4000", "10001", 1), http.StatusConflict, 0},
		"another currency is refused":                  {"acme", strings.Replace(good, "EUR", "USD", 1), http.StatusConflict, 0},
		"nothing is not a refund":                      {"acme", strings.Replace(good, "4000", "0", 1), http.StatusUnprocessableEntity, 0},
		"a duplicate key is refused":                   {"acme", strings.Replace(good, `"payment_id"`, `"payment_id":"pay_1","payment_id"`, 1), http.StatusBadRequest, 0},
		"an unknown member is refused":                 {"acme", strings.Replace(good, "{", `{"note":1,`, 1), http.StatusBadRequest, 0},
		"trailing data is refused":                     {"acme", good + "{}", http.StatusBadRequest, 0},
		"a body over the limit is refused, not cut up": {"acme", good + strings.Repeat(" ", maxBody), http.StatusBadRequest, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler, books := desk(t)
			response := post(handler, test.tenant, "", test.body)
			booked, _ := count(t, books)
			if response.Code != test.status || booked != test.booked {
				t.Errorf("got status %d and %d refunds, want %d and %d: %s", response.Code, booked, test.status, test.booked, response.Body)
			}
		})
	}
}

func TestARepeatUnderOneKeyIsOneRefund(t *testing.T) {
	t.Parallel()
	handler, books := desk(t)
	const body = `{"payment_id":"pay_1001","amount":{"currency":"EUR","minor":4000}}`
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if response := post(handler, "acme", "key-1", body); response.Code != http.StatusOK {
				t.Errorf("got %d, want 200: %s", response.Code, response.Body)
			}
		})
	}
	calls.Wait()
	if refunds, minor := count(t, books); refunds != 1 || minor != 4000 {
		t.Errorf("got %d refunds of %d, want 1 of 4000", refunds, minor)
	}
	if response := post(handler, "acme", "key-1", strings.Replace(body, "4000", "100", 1)); response.Code != http.StatusConflict {
		t.Errorf("the key with another amount: got %d, want 409", response.Code)
	}
}

func TestRefundsNeverExceedThePayment(t *testing.T) {
	t.Parallel()
	handler, books := desk(t)
	var calls sync.WaitGroup
	for range 10 {
		calls.Go(func() {
			post(handler, "acme", "", `{"payment_id":"pay_1001","amount":{"currency":"EUR","minor":3000}}`)
		})
	}
	calls.Wait()
	if refunds, minor := count(t, books); refunds != 3 || minor != 9000 {
		t.Errorf("got %d refunds of %d, want 3 of 9000", refunds, minor)
	}
	response := httptest.NewRecorder()
	handler.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/v1/tenants/acme/payments/pay_1001", nil))
	if want := `"refunded_minor":9000`; !strings.Contains(response.Body.String(), want) {
		t.Errorf("got %s, want %s in it", response.Body, want)
	}
}
