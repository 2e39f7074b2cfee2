// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"strings"
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
		"not:marta":                                false,
		"exclude:marta":                            false,
		"without:marta":                            false,
		"from:boss@acme.example":                   false,
		"from:marta invoices":                      false,
		"https://shop.example":                     false,
		"https:deals@shop.example":                 false, // no field that narrows
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

func TestACodeIsFoundBehindWhateverIsPutBeforeIt(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	id := idOf(1)
	begin(m, id, principal("ann", "acme"), noon)
	m.Observe(sessions.Observation(hasher(), sessions.Observed{
		Session: id, Source: "tool:mail", Time: noon, JSON: []byte(`{"body":"your reset code is 884-201-773"}`),
		Worth: func(string) sessions.Worth {
			return sessions.Worth{Classification: writv1.Classification_CLASSIFICATION_RESTRICTED}
		},
	}, func(atom uint64) (bool, bool) { return m.Said(id, atom) }))
	carries := func(text string) *writv1.ValueProvenance {
		found := m.Values(id, sessions.Ask(hasher(), []atoms.Leaf{{Path: "a", Field: "a", Text: text}}, true))
		if len(found) == 0 {
			return nil
		}
		return found[0]
	}
	for _, code := range []string{"88.42.01.773", "8-8-4-2-0-1-7-7-3", "884 20 17 73"} {
		for _, junk := range []int{0, 100, 1000, 4000} {
			text := strings.Repeat("11-", junk) + "x " + code
			got := carries(text)
			if got.GetClassification() != writv1.Classification_CLASSIFICATION_RESTRICTED && !got.GetTruncated() {
				t.Errorf("%s behind %d groups is neither found nor said to be unread", code, junk)
			}
		}
	}
	if got := carries("call 884 people about 201 things"); got.GetClassification() != 0 || got.GetTruncated() {
		t.Errorf("numbers that are not the code: %v", got)
	}
}
