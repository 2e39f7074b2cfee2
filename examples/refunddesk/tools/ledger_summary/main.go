// SPDX-License-Identifier: Apache-2.0

// Command ledger_summary counts and adds up refunds: the native program behind the
// tool reports.summarize. It reads the request as JSON on standard input and
// writes the response as JSON to standard output; what it says on standard error
// is progress. The agent runs it in the sandbox.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

type money struct {
	Currency string `json:"currency"`
	Minor    int64  `json:"minor"`
}

type request struct {
	Refunds []struct {
		PaymentID string `json:"payment_id"`
		Amount    money  `json:"amount"`
	} `json:"refunds"`
}

type response struct {
	Count   int    `json:"count"`
	Total   money  `json:"total"`
	Largest *money `json:"largest,omitempty"`
}

var (
	errNothing    = errors.New("there is nothing to add up")
	errCurrencies = errors.New("the refunds are in several currencies")
)

func main() {
	if err := run(os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "ledger_summary: error: %v\n", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out, progress io.Writer) error {
	var r request
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if len(r.Refunds) == 0 {
		return errNothing
	}
	answer := response{Total: money{Currency: r.Refunds[0].Amount.Currency}}
	for _, refund := range r.Refunds {
		if refund.Amount.Currency != answer.Total.Currency {
			return errCurrencies
		}
		answer.Count++
		answer.Total.Minor += refund.Amount.Minor
		if answer.Largest == nil || refund.Amount.Minor > answer.Largest.Minor {
			answer.Largest = &refund.Amount
		}
	}
	fmt.Fprintf(progress, "added up %d refunds\n", answer.Count)
	return json.NewEncoder(out).Encode(answer)
}
