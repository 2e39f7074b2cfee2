// SPDX-License-Identifier: Apache-2.0

// Package atoms turns values into atoms: the pieces by which a value is known
// again when it comes back in another place and another form (SEMANTICS 10).
//
// An observed text gives the whole of it, each typed token in it (an e-mail
// address, a URL and its host, an IBAN, a phone number, a number, a date, an
// id), and, of a text that asks for it, each run of up to five words. A value
// among a call's arguments is known when it, or the typed tokens that it consists
// of, were observed. All is normalised alike: NFKC, case, white space, the forms
// of numbers and dates.
//
// It promises to be deterministic, bounded and versioned, and that a text with
// hidden characters or letters of mixed scripts never becomes equal to a clean
// one: such a value is known by nothing. It does not judge: what an atom is worth
// is the session's to say (state/sessions). Overlap of free text is a measure for
// what leaves ([Phrases]), and never a reason to trust.
//
//	h := atoms.NewHasher(key)
//	for _, token := range atoms.Observe("Pay INV-1042 to jane@example.com").Tokens {
//		observed[h.Atom(token)] = true
//	}
//	known := atoms.Decisive("JANE@example.com") // [[{Whole jane@example.com}] [{Address jane@example.com}]]
package atoms

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Version is that of the rules: it stands in records, and atoms of two versions
// have nothing in common.
const Version = 4

// Bounds of what is read of one value.
const (
	// MostText is how many bytes of a text are read.
	MostText = 64 << 10
	// MostTokens is how many tokens a value gives.
	MostTokens = 4096
	// MostRun is how many words a run has at most.
	MostRun = 5
	// PhraseWords is how many words a phrase has.
	PhraseWords = 4
)

// Kind is what a token is.
type Kind uint8

// The kinds of tokens.
const (
	// Whole is a whole value, or a run of words.
	Whole Kind = iota + 1
	// Address is an e-mail address.
	Address
	// URL is a URL, but for the case of scheme and host and the port that goes without
	// saying.
	URL
	// Host is the host of a URL or of an address.
	Host
	// IBAN is an international bank account number (ISO 13616).
	IBAN
	// Phone is a phone number.
	Phone
	// Number is a decimal number.
	Number
	// Date is a day.
	Date
	// ID is a name with digits in it, such as INV-1042.
	ID
	// Phrase is a run of words of classified text.
	Phrase
	// Amount is a number that is money: with a currency beside it, or with cents.
	Amount
)

// Token is one piece of a value, normalised.
type Token struct {
	Kind Kind
	Text string
}

// Reading is what was read of a value. The first token is the whole of it.
type Reading struct {
	Tokens []Token
	// Truncated says that a bound was met.
	Truncated bool
}

// Observe returns the whole of an observed text and the typed tokens in it.
func Observe(text string) Reading {
	text, cut := clip(text)
	clean, _ := normalise(text)
	r := Reading{Tokens: []Token{{Whole, clean}}, Truncated: cut}
	if whole, _ := spelt(text); whole != clean {
		r.add(Token{Whole, whole})
	}
	if looks := fold(text); looks != text && looksAsItIs(looks) {
		r.add(Observe(looks).Tokens...)
	}
	r.scan(text)
	if same := norm.NFKC.String(text); same != text {
		// In full-width digits, say, an account number is one too.
		r.scan(same)
	}
	return r
}

// scan adds the typed tokens of a text.
func (r *Reading) scan(text string) {
	for _, found := range scan(text) {
		r.add(found.tokens...)
		r.add(found.amounts(text)...)
	}
}

// ObserveWords is [Observe] that also returns each run of up to [MostRun] words as
// a whole: for texts in whose words values may be named, such as a user's request. A
// file is named without its ending, too.
func ObserveWords(text string) Reading {
	r := Observe(text)
	text, _ = clip(text)
	all := words(text)
	for i := range all {
		for n := 1; n <= MostRun && i+n <= len(all); n++ {
			said := strings.Join(all[i:i+n], " ")
			run, ok := normalise(said)
			if ok && run != "" {
				r.add(Token{Whole, run})
			}
			if whole, _ := spelt(said); ok && whole != run {
				r.add(Token{Whole, whole})
			}
			if stem := stem(run); ok && stem != "" {
				r.add(Token{Whole, stem})
			}
		}
	}
	return r
}

// stem returns the name of a file without its ending; "" for what does not look like one.
func stem(name string) string {
	const mostEnding = 5
	cut := strings.LastIndexByte(name, '.')
	if cut < 1 || len(name)-cut-1 < 1 || len(name)-cut-1 > mostEnding || strings.ContainsAny(name, "@/:#+") || strings.Contains(name[:cut], ".") {
		return ""
	}
	for _, r := range name[cut+1:] {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return ""
		}
	}
	return name[:cut]
}

// Words returns each word of a text as a whole, without those that say nothing by
// themselves: of fewer than three letters, and the commonest; of the name of a file
// also that without its ending.
func Words(text string) []Token {
	text, _ = clip(text)
	var found []Token
	for _, word := range words(text) {
		clean, ok := normalise(word)
		if ok && utf8.RuneCountInString(clean) > 2 && !common[clean] {
			found = append(found, Token{Whole, clean})
		}
		if stem := stem(clean); ok && utf8.RuneCountInString(stem) > 2 && !common[stem] {
			found = append(found, Token{Whole, stem})
		}
	}
	return found
}

// Phrases returns each run of [PhraseWords] words of a text, or the whole of a
// shorter one: the pieces by which classified text is found again.
func Phrases(text string) Reading {
	text, cut := clip(text)
	r := Reading{Truncated: cut}
	all := words(text)
	if len(all) < PhraseWords {
		clean, _ := normalise(strings.Join(all, " "))
		return Reading{Tokens: []Token{{Phrase, clean}}}
	}
	for i := range len(all) - PhraseWords + 1 {
		clean, _ := normalise(strings.Join(all[i:i+PhraseWords], " "))
		r.add(Token{Phrase, clean})
	}
	return r
}

func (r *Reading) add(tokens ...Token) {
	for _, token := range tokens {
		if len(r.Tokens) >= MostTokens {
			r.Truncated = true
			return
		}
		r.Tokens = append(r.Tokens, token)
	}
}

// ObserveNumber returns the token of a JSON number.
func ObserveNumber(number string) Reading {
	exact, ok := decimal(number)
	if !ok {
		return Reading{}
	}
	r := Reading{Tokens: []Token{{Number, exact}}}
	if strings.Contains(exact, ".") {
		r.add(Token{Amount, exact})
	}
	return r
}

// Decisive returns the alternatives by which a value among arguments can be known:
// it is, when every token of one of them was observed. The whole value is one; the
// typed tokens, when the value consists of them and of separators alone, are
// another. A text that is not what it looks like has none.
func Decisive(text string) [][]Token {
	if len(text) > MostText {
		return nil
	}
	// Signs at the ends of an argument are a part of it: report* is not report.
	whole, ok := spelt(text)
	if !ok || whole == "" {
		return nil
	}
	alternatives := [][]Token{{{Whole, whole}}}
	found := scan(text)
	rest, at := strings.Builder{}, 0
	var tokens []Token
	for _, f := range found {
		rest.WriteString(text[at:f.start])
		at = f.end
		tokens = append(tokens, f.tokens[0])
	}
	rest.WriteString(text[at:])
	if len(tokens) == 0 || strings.Trim(rest.String(), " \t\r\n,;|&/()<>[]\"'+") != "" {
		return alternatives
	}
	if slices.ContainsFunc(tokens, func(t Token) bool { return t.Kind == URL }) {
		// The case of a URL's path matters, and that of a whole text does not.
		alternatives = nil
	}
	slices.SortFunc(tokens, compare)
	return append(alternatives, slices.Compact(tokens))
}

// Loose returns the alternatives by which a text that is not what it looks like can be
// known for what it looks like; nil for any other. What is known so is never trusted.
func Loose(text string) [][]Token {
	if len(text) > MostText || looksAsItIs(text) {
		return nil
	}
	return Decisive(fold(text))
}

// looksAsItIs says whether nothing in a text is hidden, and no word of it mixes scripts.
func looksAsItIs(text string) bool { return !hides(text) && !mixes(text) }

// spelt returns the one form of a text, as [normalise] does, with the punctuation at its
// ends.
func spelt(text string) (string, bool) {
	ok := looksAsItIs(text)
	text = strings.ToLower(norm.NFKC.String(strings.Map(visible, text)))
	return strings.Join(strings.Fields(text), " "), ok
}

func compare(a, b Token) int {
	if a.Kind != b.Kind {
		return int(a.Kind) - int(b.Kind)
	}
	return strings.Compare(a.Text, b.Text)
}

// DecisiveNumber is [Decisive] of a JSON number. Of one that counts cents, or whatever of
// which perUnit make a unit of money, the amount of money is an alternative: 2050 is the
// amount 20.50, and neither the number 20.5 nor 2050 of anything else.
func DecisiveNumber(number string, perUnit uint32) [][]Token {
	exact, ok := decimal(number)
	if !ok {
		return nil
	}
	alternatives := [][]Token{{{Number, exact}}}
	if places := len(strconv.FormatUint(uint64(perUnit), 10)) - 1; places > 0 {
		if share, ok := decimal(exact + "e-" + strconv.Itoa(places)); ok && share != exact {
			alternatives = append(alternatives, []Token{{Amount, share}})
		}
	}
	return alternatives
}

// clip cuts a text at MostText, between two characters.
func clip(text string) (string, bool) {
	if len(text) <= MostText {
		return text, false
	}
	cut := MostText
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut], true
}

// words splits a text at everything that is not part of a word.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && !strings.ContainsRune("_-'@.+#/:", r)
	})
}

// normalise returns the one form of a text: NFKC (Unicode Annex 15), folded case,
// runs of white space as one space, no punctuation at the ends. It is not ok when
// something in it is hidden, or letters of several scripts stand in one word
// (Unicode Technical Standard 39, section 5.1).
func normalise(text string) (string, bool) {
	if clean, ok := normaliseASCII(text); ok {
		return clean, true
	}
	return normaliseAny(text)
}

func normaliseAny(text string) (string, bool) {
	ok := !hides(text) && !mixes(text)
	text = strings.ToLower(norm.NFKC.String(strings.Map(visible, text)))
	text = strings.Join(strings.Fields(text), " ")
	return strings.Trim(text, " .,;:!?\"'()[]{}<>«»„“”‘’`*"), ok
}

// normaliseASCII is [normalise] of a text of ASCII characters that all show.
func normaliseASCII(text string) (string, bool) {
	same, spaced := true, true
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 0x7f || c < ' ' && c != '\n' && c != '\t' && c != '\r':
			return "", false
		case c <= ' ':
			same, spaced = same && !spaced && c == ' ', true
		default:
			same, spaced = same && (c < 'A' || c > 'Z'), false
		}
	}
	if !same {
		text = spaceASCII(text)
	}
	return strings.Trim(text, " .,;:!?\"'()[]{}<>*`"), true
}

// spaceASCII folds case, and makes runs of white space one space.
func spaceASCII(text string) string {
	out := make([]byte, 0, len(text))
	for i := range len(text) {
		c := text[i]
		switch {
		case c > ' ' && c >= 'A' && c <= 'Z':
			out = append(out, c+'a'-'A')
		case c > ' ':
			out = append(out, c)
		case len(out) > 0 && out[len(out)-1] != ' ':
			out = append(out, ' ')
		}
	}
	return string(out)
}

// visible drops the characters that do not show.
func visible(r rune) rune {
	if r != '\n' && r != '\t' && r != '\r' && (unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Variation_Selector, r)) {
		return -1
	}
	return r
}

func hides(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return visible(r) < 0 })
}

// scripts are those whose letters look like each other's.
var scripts = [...]*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee}

// mixes says whether a word of the text has letters of several of the scripts.
func mixes(text string) bool {
	seen := -1
	for _, r := range text {
		if !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) {
			seen = -1
			continue
		}
		if r < utf8.RuneSelf {
			if unicode.IsLetter(r) {
				if seen > 0 {
					return true
				}
				seen = 0
			}
			continue
		}
		for i, script := range scripts {
			if !unicode.Is(script, r) {
				continue
			}
			if seen >= 0 && seen != i {
				return true
			}
			seen = i
		}
	}
	return false
}

// Key is the secret of a session under which its atoms are made.
type Key [32]byte

// Atom is a token as a session knows it.
type Atom uint64

// Hasher makes atoms. It is not for concurrent use.
type Hasher struct {
	mac hash.Hash
	buf []byte
}

// NewHasher returns a Hasher under a session's key.
func NewHasher(key Key) *Hasher { return &Hasher{mac: hmac.New(sha256.New, key[:])} }

// Atom returns the first 8 bytes of HMAC-SHA-256 over version, kind and text.
func (h *Hasher) Atom(t Token) Atom {
	h.mac.Reset()
	h.buf = append(h.buf[:0], Version, byte(t.Kind))
	h.buf = append(h.buf, t.Text...)
	h.mac.Write(h.buf)
	h.buf = h.mac.Sum(h.buf[:0])
	return Atom(binary.BigEndian.Uint64(h.buf))
}

// common are words that name nothing, in the languages of docs/provenance.md.
var common = set("the and for with from that this are was were has have had not you your our their his her its all any can will " +
	"please what which who when where how into about over under out new old get set use let me my mine him she they them " +
	"der die das und ein eine mit von für den dem des ist sind bitte les des une est avec pour par sur dans " +
	"los las una con por para del que uno dei della gli delle per con che een het van voor met dos das uma com " +
	"send show list find look give make mail email message file invoice payment pay transfer money account")

func set(list string) map[string]bool {
	out := make(map[string]bool)
	for word := range strings.FieldsSeq(list) {
		out[word] = true
	}
	return out
}
