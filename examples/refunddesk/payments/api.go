// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/writ-dev/writ/ledger/token"
)

const (
	maxBody           = 64 << 10
	headerDecision    = "X-Writ-Decision-Id"
	headerIdempotency = "Idempotency-Key"
)

// api is the HTTP face of the books. A nil verifier demands no decision token.
type api struct {
	books    *books
	verifier *token.Verifier
}

func newAPI(books *books, verifier *token.Verifier) http.Handler {
	a := &api{books: books, verifier: verifier}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("POST /v1/tenants/{tenant}/refunds", a.issueRefund)
	mux.HandleFunc("GET /v1/tenants/{tenant}/payments/{payment_id}", a.getPayment)
	return mux
}

func (a *api) health(w http.ResponseWriter, r *http.Request) {
	if err := a.books.ping(r.Context()); err != nil {
		refuse(w, http.StatusServiceUnavailable, "the books cannot be read")
		return
	}
	answer(w, map[string]string{"status": "ok"})
}

type refundRequest struct {
	PaymentID     string `json:"payment_id"`
	Amount        money  `json:"amount"`
	Reason        string `json:"reason"`
	CustomerEmail string `json:"customer_email"`
}

type refundResponse struct {
	RefundID   string `json:"refund_id"`
	PaymentID  string `json:"payment_id"`
	Amount     money  `json:"amount"`
	CardNumber string `json:"card_number"`
}

func (a *api) issueRefund(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body cannot be read")
		return
	}
	if a.verifier != nil {
		if _, err := a.verifier.Verify(r, body); err != nil {
			refuse(w, http.StatusForbidden, "no decision token that is good for this request")
			return
		}
	}
	var request refundRequest
	// Duplicate and unknown members, invalid UTF-8 and trailing data are refused.
	if err := json.UnmarshalRead(bytes.NewReader(body), &request, json.RejectUnknownMembers(true)); err != nil {
		refuse(w, http.StatusBadRequest, "the body is not a refund")
		return
	}
	if request.Amount.Minor <= 0 {
		refuse(w, http.StatusUnprocessableEntity, "the amount must be positive")
		return
	}
	id, paid, err := a.books.issue(r.Context(), &refund{
		tenant: r.PathValue("tenant"), paymentID: request.PaymentID, amount: request.Amount,
		reason: request.Reason, customerEmail: request.CustomerEmail,
		decisionID: r.Header.Get(headerDecision), repeatable: r.Header.Get(headerIdempotency),
	})
	if err != nil {
		refuse(w, statusOf(err), textOf(err))
		return
	}
	answer(w, refundResponse{
		RefundID: fmt.Sprintf("ref_%d", id), PaymentID: request.PaymentID, Amount: request.Amount, CardNumber: paid.CardNumber,
	})
}

func (a *api) getPayment(w http.ResponseWriter, r *http.Request) {
	paid, err := a.books.payment(r.Context(), r.PathValue("tenant"), r.PathValue("payment_id"))
	if err != nil {
		refuse(w, statusOf(err), textOf(err))
		return
	}
	answer(w, struct {
		PaymentID     string `json:"payment_id"`
		Amount        money  `json:"amount"`
		RefundedMinor int64  `json:"refunded_minor"`
		CustomerEmail string `json:"customer_email"`
		CardNumber    string `json:"card_number"`
	}{paid.PaymentID, paid.Amount, paid.RefundedMinor, paid.CustomerEmail, paid.CardNumber})
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, errNoPayment):
		return http.StatusNotFound
	case errors.Is(err, errTooMuch), errors.Is(err, errCurrency), errors.Is(err, errKeyReused):
		return http.StatusConflict
	default:
		return http.StatusInternalServerError
	}
}

// textOf tells the caller what it can mend, and nothing of the database.
func textOf(err error) string {
	if statusOf(err) == http.StatusInternalServerError {
		return "the refund could not be booked"
	}
	return err.Error()
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	// The answer may be cut when the caller goes away; it is not ours to mend.
	_ = json.MarshalWrite(w, value)
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, map[string]string{"error": text})
}
