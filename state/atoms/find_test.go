// SPDX-License-Identifier: Apache-2.0

// White box: a finder is not to be seen from outside, and is to be held against the
// form that it stands for.
package atoms

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// forms says what each finder finds.
var forms = []struct {
	name string
	find finder
	form *regexp.Regexp
}{
	{"URL", findURL, regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]{1,16}://[^\s<>"'\x60\\^{|}]{1,1000}`)},
	{"address", findAddress, regexp.MustCompile(`(?i)[a-z0-9.!#$%&*+/=?^_{|}~-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?`)},
	{"IBAN", findIBAN, regexp.MustCompile(`(?i)\b[a-z]{2}[0-9]{2}(?: ?[a-z0-9]){11,30}\b`)},
	{"date", findDate, regexp.MustCompile(`(?i)\b(?:[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{4})\b`)},
	{"long date", findLongDate, regexp.MustCompile(`(?i)\b(?:[0-9]{1,2}\.? (?:de |of )?[\p{L}]{3,10}\.?(?: de)? [0-9]{4}|[\p{L}]{3,10}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4})\b`)},
	{"phone", findPhone, regexp.MustCompile(`\+[0-9](?:[ ().-]?[0-9]){6,14}`)},
	{"host", findHost, regexp.MustCompile(`(?i)\b[a-z0-9](?:[a-z0-9-]{0,62}\.)+[a-z]{2,24}\b`)},
	{"amount", findAmount, regexp.MustCompile(`(?i)\b(?:` + strings.Join(currencies, "|") + `)[0-9](?:[0-9.,']*[0-9])?\b|\b[0-9](?:[0-9.,']*[0-9])?(?:` + strings.Join(currencies, "|") + `)\b`)},
	{"ID", findID, regexp.MustCompile(`(?i)[#]?[a-z0-9]+(?:[-_/#][a-z0-9]+)+|[#]?[a-z]+[0-9][a-z0-9]*|[0-9]+[a-z][a-z0-9]*|#[0-9]+`)},
	{"number", findNumber, regexp.MustCompile(`[0-9](?:[0-9.,']*(?:[ \x{00a0}][0-9.,']*){0,12}[0-9])?`)},
}

// pieces are what texts are drawn from, so that forms are met, and just missed.
var pieces = []string{
	"a", "b", "Z", "x9", "9", "0", "12", "2026", "05", " ", " ", " ", ".", ".", "-", "-", "_", "/", "#", "@", "+", "://", ":", ",", "'", "(", ")",
	"http", "https://example.com/a?b=c#d", "jane", "example.com", "com", "DE89", "DE89 3704 0044 0532 0130 00", "370400440532013000", "May", "März", "août",
	"de ", " de", "of ", "1st", "2nd", "th", "\u00a0", "ä", "日本", "\xff", "é", "\n", "\"", "%", "INV-1042", "1,234.50", "+49 30 1234567",
	"abcdefghijklmnop", strings.Repeat("l", 62), strings.Repeat("m", 24), "a.b.", "..", "{", "=",
	"+1234567", "+12 3", "EUR", "usd", "20eur", "CHF1,50", "GB00a2345678901", "1.2.2026", "a.co", "3 May 2026",
}

func textDrawn(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 24).Draw(t, "pieces"), "")
}

// disagree says where a finder and its form do: in the text, and from each place on
// at which a scan goes on.
func disagree(t interface{ Fatalf(string, ...any) }, text string) {
	// Of letters that are not ASCII two fold to ASCII ones; the form knows them.
	text = strings.NewReplacer("ſ", "", "\u212a", "").Replace(text)
	for _, f := range forms {
		for rest := text; ; {
			start, end := f.find(rest)
			at := f.form.FindStringIndex(rest)
			if at == nil {
				at = []int{-1, -1}
			}
			if start != at[0] || end != at[1] {
				t.Fatalf("%s in %q: got %d to %d, want %d to %d", f.name, rest, start, end, at[0], at[1])
			}
			if start < 0 {
				break
			}
			rest = rest[end:]
		}
	}
}

func TestFindersFindWhatTheirFormsSay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) { disagree(t, textDrawn(t)) })
	rapid.Check(t, func(t *rapid.T) { disagree(t, rapid.String().Draw(t, "text")) })
}

func FuzzFindersFindWhatTheirFormsSay(f *testing.F) {
	for _, piece := range pieces {
		f.Add(piece + " " + piece)
	}
	f.Add("see https://user:pass@example.com:443/a%20b, pay DE89 3704 0044 0532 0130 00 by 15. März 2026 to jane+x@example.com")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 1<<12 {
			disagree(t, text)
		}
	})
}

func TestFastReadingsAreTheFullOnes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.Custom(textDrawn), rapid.StringMatching(`[ -~\n\t]{0,30}`)).Draw(t, "text")
		got, ok := normalise(text)
		if want, wantOK := normaliseAny(text); got != want || ok != wantOK {
			t.Fatalf("%q is normalised to %q, %t, want %q, %t", text, got, ok, want, wantOK)
		}
		number := rapid.StringMatching(`0{0,3}[0-9]{1,30}(\.[0-9]{0,30}0{0,3})?`).Draw(t, "number")
		got, ok = decimal(number)
		if want, wantOK := decimalAny(number); got != want || ok != wantOK {
			t.Fatalf("%q is read as %q, %t, want %q, %t", number, got, ok, want, wantOK)
		}
	})
}
