// SPDX-License-Identifier: Apache-2.0

// The test stands inside the package because a command cannot be imported.
package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	t.Parallel()
	const two = `{"refunds":[{"payment_id":"pay_1","amount":{"currency":"EUR","minor":4999}},{"payment_id":"pay_2","amount":{"currency":"EUR","minor":1}}]}`
	for name, test := range map[string]struct {
		in, want string
		err      error
	}{
		"refunds are counted and added up":    {two, `{"count":2,"total":{"currency":"EUR","minor":5000},"largest":{"currency":"EUR","minor":4999}}`, nil},
		"no refunds have no sum":              {`{"refunds":[]}`, "", errNothing},
		"several currencies cannot be summed": {strings.Replace(two, "EUR", "USD", 1), "", errCurrencies},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, progress bytes.Buffer
			err := run(strings.NewReader(test.in), &out, &progress)
			if !errors.Is(err, test.err) || strings.TrimSpace(out.String()) != test.want {
				t.Errorf("run(%s) = %v and %s, want %v and %s", test.in, err, out.String(), test.err, test.want)
			}
		})
	}
}
