// SPDX-License-Identifier: Apache-2.0

package query

import (
	"errors"
	"testing"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// FuzzPageToken is a white box: that nothing but what was given out is taken can be seen
// only where tokens are made.
func FuzzPageToken(f *testing.F) {
	own, err := newCursor("store", &writv1.RecordFilter{Tool: "t"})
	if err != nil {
		f.Fatal(err)
	}
	other, err := newCursor("store", nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, token := range []string{"", "A", own.token(1), own.token(1 << 63), other.token(1), own.token(1)[1:], own.token(0)} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		place, err := own.place(token)
		switch {
		case err != nil && !errors.Is(err, ErrInvalid):
			t.Errorf("%q: %v", token, err)
		case err == nil && token != "" && (place == 0 || own.token(place) != token):
			t.Errorf("%q is taken for place %d", token, place)
		}
		if _, err2 := other.place(token); err == nil && err2 == nil && token != "" {
			t.Errorf("%q is taken for two filters", token)
		}
	})
}
