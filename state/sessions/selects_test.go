// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"testing"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/sessions"
)

func TestALookupIsOfTheRequestWhenItsWordsAre(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	id := idOf(1)
	begin(m, id, principal("ann", "acme"), noon)
	hear(m, id, sessions.User, "delete all mails from deals@shop.example and what Marta wrote", writv1.Trust_TRUST_TRUSTED)
	said := func(atom uint64) (user, request bool) { return m.Said(id, atom) }
	for text, want := range map[string]bool{
		"deals@shop.example":                       true,
		"from:deals@shop.example":                  true,
		"from: deals@shop.example":                 true,
		"sender:Marta":                             true,
		"Marta wrote":                              true,
		"from:marta subject:deals@shop.example":    true,
		"-from:marta":                              false, // that is all others
		"from:boss@acme.example":                   false,
		"from:marta invoices":                      false,
		"https://shop.example":                     false,
		"https:deals@shop.example":                 true, // no URL: nothing is fetched by it
		"from:marta from:eve@evil.example":         false,
		"from:":                                    false,
		"aVeryLongNameThatIsNoFieldOfAnySearch:me": false,
	} {
		leaves := []atoms.Leaf{{Path: "query", Text: text}}
		if got, _ := sessions.Selects(hasher(), leaves, nil, said); got != want {
			t.Errorf("%q: selected %v, want %v", text, got, want)
		}
	}
}
