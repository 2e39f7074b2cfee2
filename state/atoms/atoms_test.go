// SPDX-License-Identifier: Apache-2.0

package atoms_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-dev/writ/state/atoms"
)

// knownBy says whether a value is known to somebody who observed a text.
func knownBy(value, observed string) bool {
	tokens := atoms.ObserveWords(observed).Tokens
	return slices.ContainsFunc(atoms.Decisive(value), func(alternative []atoms.Token) bool {
		return !slices.ContainsFunc(alternative, func(t atoms.Token) bool { return !slices.Contains(tokens, t) })
	})
}

func TestAValueIsKnownInEveryFormOfIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ value, observed string }{
		"an address in a sentence":            {"jane@example.com", "write to Jane@Example.com, please"},
		"an address after a colon":            {"JANE@example.com", "to:jane@example.com"},
		"an account without its spaces":       {"DE89370400440532013000", "to DE89 3704 0044 0532 0130 00 for the tickets"},
		"an account after something like one": {"GB82WEST12345698765432", "to UK55 1234 5678 9012 3456 or GB82 WEST 1234 5698 7654 32"},
		"a URL with its default port":         {"https://example.com/a", "see HTTPS://EXAMPLE.com:443/a."},
		"the host of a URL":                   {"example.com", "see https://example.com/a"},
		"an id":                               {"INV-1042", "pay inv-1042 today"},
		"a number sign is not part of an id":  {"4711", "close #4711"},
		"a phone number":                      {"+49 30 1234567", "call +49-30-1234567"},
		"a day in English":                    {"2026-05-01", "on May 1, 2026"},
		"a day in German":                     {"2026-03-15", "am 15. März 2026"},
		"a day in French":                     {"2026-08-02", "le 2 août 2026"},
		"a day in Spanish":                    {"2026-01-09", "el 9 de enero de 2026"},
		"a day that may be another":           {"2026-05-01", "on 05/01/2026"},
		"a name":                              {"Jane Doe", "send it to Jane Doe, not to John"},
		"a name in other letters of the same": {"jane doe", "send it to ＪＡＮＥ Doe"},
		"a list of addresses":                 {"a@x.org, b@x.org", "mail a@x.org and b@x.org"},
		"a whole text":                        {"The quick brown fox", "the  quick brown\nfox"},
	} {
		if !knownBy(c.value, c.observed) {
			t.Errorf("%s: %q is not known from %q", name, c.value, c.observed)
		}
	}
}

func TestAValueThatOnlyLooksLikeAnotherIsNotKnown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ value, observed string }{
		"a Cyrillic letter in an account":  {"GВ29NWBK60161331926819", "GB29NWBK60161331926819"},
		"a Cyrillic letter in an address":  {"jаne@example.com", "jane@example.com"},
		"a space that does not show":       {"jane\u200b@example.com", "jane@example.com"},
		"text that turns around":           {"\u202emoc.elpmaxe@enaj", "jane@example.com"},
		"another host with the name in it": {"example.com.evil.org", "see example.com"},
		"an address with one more":         {"jane@example.com, eve@evil.org", "to jane@example.com"},
		"a longer text with the value":     {"jane@example.com; drop the rest", "to jane@example.com"},
		"an account with another check":    {"DE89370400440532013001", "DE89370400440532013000"},
		"nothing":                          {"", "anything"},
	} {
		if knownBy(c.value, c.observed) {
			t.Errorf("%s: %q is known from %q", name, c.value, c.observed)
		}
	}
}

func TestNumbersAreKnownByWhatTheyAre(t *testing.T) {
	t.Parallel()
	for observed, number := range map[string]string{
		"pay 1,234.50 now": "1234.5", "zahle 1.234,50": "1234.50", "it costs 100": "1e2", "99.90 EUR": "99.9", "2'500 CHF": "2500",
	} {
		want := atoms.DecisiveNumber(number, 0)[0][0]
		if !slices.Contains(atoms.Observe(observed).Tokens, want) {
			t.Errorf("%s is not known from %q: %v", number, observed, atoms.Observe(observed).Tokens)
		}
	}
}

func TestWhatIsEncodedIsReadForWhatItSays(t *testing.T) {
	t.Parallel()
	const secret = "password: hunter2hunter2"
	twice := base64.StdEncoding.EncodeToString([]byte(base64.RawURLEncoding.EncodeToString([]byte(secret))))
	reverse := []rune(secret)
	slices.Reverse(reverse)
	for name, text := range map[string]string{
		"plain": secret, "base64": base64.StdEncoding.EncodeToString([]byte(secret)), "base64url": base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"hex": hex.EncodeToString([]byte(secret)), "percent": url.PathEscape(secret), "twice": twice,
		"in a link": "see https://evil.org/?q=" + base64.RawURLEncoding.EncodeToString([]byte(secret)), "backwards": string(reverse),
		"with what does not show": strings.Join(strings.Split(secret, ""), "\u200b"), "with lookalikes": "pаsswоrd: hunter2hunter2",
		"hex with spaces": strings.Join(strings.Split(hexPairs(secret), ""), ""),
	} {
		readings, _ := atoms.Egress(text)
		if !slices.ContainsFunc(readings, func(r string) bool { return len(atoms.Secrets(r)) > 0 }) {
			t.Errorf("%s: no secret in %q", name, readings)
		}
	}
}

func hexPairs(text string) string {
	var out []string
	for i := range len(text) {
		out = append(out, hex.EncodeToString([]byte{text[i]}))
	}
	return strings.Join(out, " ")
}

func TestWhatLooksLikeASecretIsOne(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"AKIAIOSFODNN7EXAMPLE": true, "ghp_0123456789abcdefghijABCDEFGHIJ012345": true, "mein Passwort ist Sommer2026": true,
		"-----BEGIN RSA PRIVATE KEY-----": true, "4111 1111 1111 1111": true, "the PIN: 4711": true, "postgres://app:s3cret@db/prod": true,
		"Please reset my password.": false, "The token ring is old.": false, "order 4111 1111 1111 1112": false,
		"550e8400-e29b-41d4-a716-446655440000": false, "see you on 2026-05-01 at noon": false, "https://example.com/a/long/path/with/words": false,
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08": false, "Donaudampfschifffahrtsgesellschaft": false,
	} {
		if got := len(atoms.Secrets(text)) > 0; got != want {
			t.Errorf("%q: secret %t, want %t", text, got, want)
		}
	}
}

func TestLeavesTellWhereTheyStand(t *testing.T) {
	t.Parallel()
	leaves, objects, truncated, err := atoms.Leaves([]byte(`{"a":{"b":[{"c":"x"},{"c":2}]},"d":[true,null]}`))
	if err != nil || truncated {
		t.Fatal(err, truncated)
	}
	var got []string
	for _, l := range leaves {
		got = append(got, l.Path+"="+l.JSON())
	}
	want := []string{"a.b[0].c=\"x\"", "a.b[1].c=2", "d[0]=true"}
	if !slices.Equal(got, want) {
		t.Errorf("leaves: got %q, want %q", got, want)
	}
	if len(objects) != 4 || objects[3].Parent != 1 || !objects[3].Listed || objects[3].Field != "a.b" {
		t.Errorf("objects: %+v", objects)
	}
	if _, _, _, err := atoms.Leaves([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))); err == nil {
		t.Error("a text nested too deeply was read")
	}
}

func TestATypedTokenIsFoundInAnyText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SampledFrom([]string{"jane@example.com", "INV-1042", "DE89370400440532013000", "https://example.com/x?y=1", "+49301234567", "2026-05-01"}).Draw(t, "value")
		before := rapid.StringMatching(`([a-z]{1,8} ){0,5}`).Draw(t, "before")
		after := rapid.StringMatching(`( [a-z]{1,8}){0,5}[.!?]?`).Draw(t, "after")
		if !knownBy(value, before+value+after) {
			t.Fatalf("%q is not known from %q", value, before+value+after)
		}
	})
}

func FuzzNoTextBreaksTheAtomiser(f *testing.F) {
	for _, seed := range []string{"", "jane@example.com", "DE89 3704 0044 0532 0130 00", "%25%32%35", "\u202e\u200b", "1.234,50", "31/02/2026", "aGVsbG8=", "\xff\xfe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, second := atoms.ObserveWords(text), atoms.ObserveWords(text)
		if !slices.Equal(first.Tokens, second.Tokens) {
			t.Fatal("two readings differ")
		}
		if len(first.Tokens) > atoms.MostTokens {
			t.Fatalf("%d tokens", len(first.Tokens))
		}
		for _, alternative := range atoms.Decisive(text) {
			if len(alternative) == 0 {
				t.Fatal("an alternative without tokens would always be known")
			}
		}
		readings, _ := atoms.Egress(text)
		for _, reading := range readings {
			for _, secret := range atoms.Secrets(reading) {
				if secret.Start < 0 || secret.End > len(reading) || secret.Start > secret.End {
					t.Fatalf("a secret at %d to %d of %d", secret.Start, secret.End, len(reading))
				}
			}
		}
		if got := atoms.Digits(text, " -./"); len(got.Tokens) > 2*atoms.MostTokens {
			t.Fatalf("%d numbers", len(got.Tokens))
		}
		atoms.Phrases(text)
		atoms.Words(text)
	})
}

func FuzzNoJSONBreaksTheLeaves(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":"c"}],"d":null}`))
	f.Add([]byte(`[[[`))
	f.Fuzz(func(t *testing.T, text []byte) {
		leaves, objects, _, err := atoms.Leaves(text)
		if err != nil {
			return
		}
		for _, leaf := range leaves {
			if len(objects) > 0 && leaf.Object >= len(objects) {
				t.Fatalf("%s stands in object %d of %d", leaf.Path, leaf.Object, len(objects))
			}
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	text := strings.Repeat("Invoice INV-1042 of 2026-05-01 for 1,234.50 EUR to jane@example.com, see https://example.com/inv/1042. ", 20)
	hasher := atoms.NewHasher(atoms.Key{})
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		for _, token := range atoms.Observe(text).Tokens {
			hasher.Atom(token)
		}
	}
}

func TestAFileIsNamedWithoutItsEnding(t *testing.T) {
	t.Parallel()
	holds := func(tokens []atoms.Token, want string) bool {
		return slices.Contains(tokens, atoms.Token{Kind: atoms.Whole, Text: want})
	}
	for name, want := range map[string]string{"roadmap.docx": "roadmap", "minutes.txt": "minutes", "notes-2025.md": "notes-2025"} {
		if !holds(atoms.Words(name), want) || !holds(atoms.ObserveWords("open "+name+" please").Tokens, want) {
			t.Errorf("%s is not named by %s", name, want)
		}
	}
	for _, name := range []string{"ann@example.com", "www.example.com", "https://example.com", "v1.2.3", ".profile", "a.much-longer"} {
		for _, token := range atoms.Words(name) {
			if token.Text == "ann@example" || token.Text == "www.example" || token.Text == "v1.2" || token.Text == "a" {
				t.Errorf("%s is cut to %s", name, token.Text)
			}
		}
	}
}

// meets says whether a value among arguments can be known from an observed text.
func meets(observed, argument string) bool {
	known := atoms.ObserveWords(observed).Tokens
	for _, alternative := range atoms.Decisive(argument) {
		if !slices.ContainsFunc(alternative, func(t atoms.Token) bool { return !slices.Contains(known, t) }) {
			return true
		}
	}
	return false
}

func TestAValueIsNotKnownByOneThatAToolTakesForAnother(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ observed, argument string }{
		"a pattern is not the name it is made of":    {"delete the file report", "report*"},
		"a path is not what it begins with":          {"read /etc", "../etc"},
		"a quoted word is not the word":              {"open ann", "'ann'"},
		"the case of a URL's path":                   {"see https://bit.ly/aBcD", "https://bit.ly/AbCd"},
		"the user of a URL":                          {"see https://host.example/x", "https://evil@host.example/x"},
		"the fragment of a URL":                      {"see https://host.example/x", "https://host.example/x#y"},
		"an address that hides a sign":               {"write to ann@example.com", "ann@exam\u200bple.com"},
		"an address that mixes scripts":              {"write to ann@example.com", "ann@ex\u0430mple.com"},
		"an address with something after it":         {"write to ann@example.com", "ann@example.com.evil.example"},
		"another number than the one that was named": {"pay 2000", "20000"},
	} {
		if meets(c.observed, c.argument) {
			t.Errorf("%s: %q is known from %q", name, c.argument, c.observed)
		}
	}
	for name, c := range map[string]struct{ observed, argument string }{
		"a word at the end of a sentence":  {"send it to Ann Lee.", "Ann Lee"},
		"a name that ends with a point":    {"the customer is Acme Inc.", "Acme Inc."},
		"the case of scheme and host":      {"see HTTPS://Host.Example/x", "https://host.example/x"},
		"a port that goes without saying":  {"see https://host.example:443/x", "https://host.example/x"},
		"a quoted value without its signs": {`open "ann"`, "ann"},
	} {
		if !meets(c.observed, c.argument) {
			t.Errorf("%s: %q is not known from %q", name, c.argument, c.observed)
		}
	}
}

func TestWhatIsNotWhatItLooksLikeIsKnownForWhatItLooksLike(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"eve@ev\u200bil.example", "eve@\u0435vil.example", "eve@evil.example\u202e"} {
		known := atoms.Observe("please write to " + text + " today").Tokens
		alternatives := atoms.Loose(text)
		if len(alternatives) == 0 {
			t.Errorf("%q is known for nothing", text)
			continue
		}
		found := slices.ContainsFunc(alternatives, func(alternative []atoms.Token) bool {
			return !slices.ContainsFunc(alternative, func(token atoms.Token) bool { return !slices.Contains(known, token) })
		})
		if !found {
			t.Errorf("%q is not known for what it looks like", text)
		}
	}
	if atoms.Loose("eve@evil.example") != nil {
		t.Error("a text that is what it looks like is known for something else")
	}
}

func TestAValueIsFoundBesideAndWithinOthers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]atoms.Token{
		"jane2 100":        {{Kind: atoms.ID, Text: "jane2"}, {Kind: atoms.Number, Text: "100"}},
		"5 100 200":        {{Kind: atoms.Number, Text: "5"}, {Kind: atoms.Number, Text: "100"}, {Kind: atoms.Number, Text: "200"}, {Kind: atoms.Number, Text: "5100200"}},
		"INV-7 1,50 and 3": {{Kind: atoms.Number, Text: "1.5"}, {Kind: atoms.Number, Text: "3"}},
		"Pay to ＤＥ０２１２０３００００００００２０２０５１ now":     {{Kind: atoms.IBAN, Text: "DE02120300000000202051"}},
		"write to ｅｖｅ＠ｅｖｉｌ．ｏｒｇ":                 {{Kind: atoms.Address, Text: "eve@evil.org"}},
		"see https://münchen.de/plan":           {{Kind: atoms.Host, Text: "xn--mnchen-3ya.de"}, {Kind: atoms.URL, Text: "https://xn--mnchen-3ya.de/plan"}},
		"see https://xn--mnchen-3ya.de/plan":    {{Kind: atoms.Host, Text: "xn--mnchen-3ya.de"}, {Kind: atoms.URL, Text: "https://xn--mnchen-3ya.de/plan"}},
		"5 2026-05-01 7":                        {{Kind: atoms.Number, Text: "5"}, {Kind: atoms.Number, Text: "7"}, {Kind: atoms.Date, Text: "2026-05-01"}},
		"2026-05-01 5 or jane@example.com 1234": {{Kind: atoms.Number, Text: "5"}, {Kind: atoms.Number, Text: "1234"}, {Kind: atoms.Date, Text: "2026-05-01"}},
	} {
		got := atoms.Observe(text).Tokens
		for _, token := range want {
			if !slices.Contains(got, token) {
				t.Errorf("%q: %v is not among %v", text, token, got)
			}
		}
	}
}

func TestNumbersBesideEachOtherAreDecisiveTogether(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]atoms.Token{
		"1 2":       {{Kind: atoms.Number, Text: "1"}, {Kind: atoms.Number, Text: "2"}},
		"1 2 3.5":   {{Kind: atoms.Number, Text: "1"}, {Kind: atoms.Number, Text: "2"}, {Kind: atoms.Number, Text: "3.5"}},
		"5 100 200": {{Kind: atoms.Number, Text: "5100200"}},
		"jane2 100": {{Kind: atoms.Number, Text: "100"}, {Kind: atoms.ID, Text: "jane2"}},
	} {
		alternatives := atoms.Decisive(text)
		if len(alternatives) != 2 || !slices.Equal(alternatives[1], want) {
			t.Errorf("%q is decided by %v, want %v", text, alternatives, want)
		}
	}
}

func TestCentsAreKnownByAmountsOfMoney(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"send 20.50 to Bob": true, "send 20,50 € to Bob": true, "send $20.50": true, "20.50EUR": true, "EUR 20.50": true, "20.5 dollars": true,
		"€ 20.5": true, "20.5 francs": true, "2050": false, "send 20.5 to Bob": false, "20.5 people": false, "20.5 cents": false, "20.5 eurocents": false,
		"2,050": false,
	} {
		if got := slices.Contains(atoms.Observe(text).Tokens, atoms.Token{Kind: atoms.Amount, Text: "20.5"}); got != want {
			t.Errorf("%q says the amount 20.5: %v", text, got)
		}
	}
	for number, want := range map[string][]atoms.Token{
		"2050": {{Kind: atoms.Number, Text: "2050"}, {Kind: atoms.Amount, Text: "20.5"}}, "5": {{Kind: atoms.Number, Text: "5"}, {Kind: atoms.Amount, Text: "0.05"}},
		"0": {{Kind: atoms.Number, Text: "0"}}, "-300": {{Kind: atoms.Number, Text: "-300"}, {Kind: atoms.Amount, Text: "-3"}},
	} {
		var got []atoms.Token
		for _, alternative := range atoms.DecisiveNumber(number, 100) {
			got = append(got, alternative...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is decided by %v, want %v", number, got, want)
		}
	}
	if got := atoms.DecisiveNumber("2000", 0); len(got) != 1 {
		t.Errorf("what is no money is decided by %v", got)
	}
}
