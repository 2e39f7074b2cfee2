// SPDX-License-Identifier: Apache-2.0

package atoms

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A finder returns the first place in a text from which on a form of typed tokens
// stands, and its end; -1 where there is none. Each is what the regular expression
// beside it in scan.go means, without its machine: TestFindersFindWhatTheirFormsSay
// holds one against the other. Forms are of ASCII letters.
type finder func(text string) (start, end int)

// Classes of ASCII characters, as bits.
const (
	letter = 1 << iota
	digit
	underscore
	ofScheme
	ofLocal
	ofDomain
	notURL
	ofNumber
	alnum = letter | digit
	word  = letter | digit | underscore
)

var classes = func() (of [256]uint16) {
	mark := func(bits uint16, chars string) {
		for i := range len(chars) {
			of[chars[i]] |= bits
		}
	}
	const lower = "abcdefghijklmnopqrstuvwxyz"
	const digits = "0123456789"
	letters := lower + strings.ToUpper(lower)
	mark(letter, letters)
	mark(digit, digits)
	mark(underscore, "_")
	mark(ofScheme, letters+digits+"+.-")
	mark(ofLocal, letters+digits+".!#$%&*+/=?^_{|}~-")
	mark(ofDomain, letters+digits+".-")
	mark(notURL, " \t\n\f\r<>\"'`\\^{|}")
	mark(ofNumber, digits+".,' ")
	return of
}()

func is(c byte, bits uint16) bool { return classes[c]&bits != 0 }

// boundary says whether a word begins or ends at the place.
func boundary(text string, at int) bool {
	before := at > 0 && is(text[at-1], word)
	after := at < len(text) && is(text[at], word)
	return before != after
}

// run returns where the characters of a class end that stand from the place on, at
// most so many.
func run(text string, at int, bits uint16, most int) int {
	end := min(len(text), at+most)
	for at < end && is(text[at], bits) {
		at++
	}
	return at
}

// findURL: \b[a-z][a-z0-9+.-]{1,16}://[^\s<>"'`\\^{|}]{1,1000}
func findURL(text string) (int, int) {
	const mostScheme, mostRest = 17, 1000
	for from := 0; ; {
		colon := strings.Index(text[from:], "://")
		if colon < 0 {
			return -1, -1
		}
		colon += from
		from = colon + 1
		begin := colon
		for begin > max(0, colon-mostScheme) && is(text[begin-1], ofScheme) {
			begin--
		}
		for begin < colon && !(is(text[begin], letter) && boundary(text, begin)) {
			begin++
		}
		end := colon + len("://")
		for n := 0; n < mostRest && end < len(text) && !is(text[end], notURL); n++ {
			_, size := utf8.DecodeRuneInString(text[end:])
			end += size
		}
		if colon-begin > 1 && end > colon+len("://") {
			return begin, end
		}
	}
}

// findAddress: [a-z0-9.!#$%&*+/=?^_{|}~-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?
func findAddress(text string) (int, int) {
	const mostLocal, mostDomain = 64, 252
	for from := 0; ; {
		at := strings.IndexByte(text[from:], '@')
		if at < 0 {
			return -1, -1
		}
		at += from
		from = at + 1
		begin := at
		for begin > max(0, at-mostLocal) && is(text[begin-1], ofLocal) {
			begin--
		}
		if begin == at || from >= len(text) || !is(text[from], alnum) {
			continue
		}
		end := run(text, from+1, ofDomain, mostDomain)
		for !is(text[end-1], alnum) {
			end--
		}
		return begin, end
	}
}

// findIBAN: \b[a-z]{2}[0-9]{2}(?: ?[a-z0-9]){11,30}\b
func findIBAN(text string) (int, int) {
	const head, least, most = 4, 11, 30
	for at := 0; at+head+least <= len(text); at++ {
		if !is(text[at], letter) || !is(text[at+1], letter) || !is(text[at+2], digit) || !is(text[at+3], digit) || !boundary(text, at) {
			continue
		}
		best := -1
		for next, n := at+head, 1; n <= most && next < len(text); n++ {
			if text[next] == ' ' {
				next++
			}
			if next >= len(text) || !is(text[next], alnum) {
				break
			}
			next++
			if n >= least && boundary(text, next) {
				best = next
			}
		}
		if best >= 0 {
			return at, best
		}
	}
	return -1, -1
}

// findDate: \b(?:[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{4})\b
func findDate(text string) (int, int) {
	for at := 0; at < len(text); at++ {
		if !is(text[at], digit) {
			continue
		}
		if boundary(text, at) {
			if end := dateAt(text, at); end >= 0 {
				return at, end
			}
		}
		at = run(text, at, word, len(text))
	}
	return -1, -1
}

func dateAt(text string, at int) int {
	first := run(text, at, digit, 5)
	var between string
	last := 4
	switch first - at {
	case 4:
		between, last = "-", 2
	case 1, 2:
		between = "./"
	default:
		return -1
	}
	if first >= len(text) || !strings.Contains(between, text[first:first+1]) {
		return -1
	}
	second := run(text, first+1, digit, 3)
	if n := second - first - 1; n < 1 || n > 2 || second >= len(text) || !strings.Contains(between, text[second:second+1]) {
		return -1
	}
	third := run(text, second+1, digit, 5)
	n := third - second - 1
	if n < 1 || n > last || last == 4 && n != 4 || !boundary(text, third) {
		return -1
	}
	return third
}

// findLongDate: \b(?:[0-9]{1,2}\.? (?:de |of )?\p{L}{3,10}\.?(?: de)? [0-9]{4}|
// \p{L}{3,10}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4})\b
func findLongDate(text string) (int, int) {
	for at := 0; at < len(text); {
		c := text[at]
		if (is(c, alnum) || c >= utf8.RuneSelf) && boundary(text, at) {
			if end := longDateAt(text, at); end >= 0 {
				return at, end
			}
		}
		if is(c, word) {
			at = run(text, at, word, len(text))
			continue
		}
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return -1, -1
}

func longDateAt(text string, at int) int {
	if is(text[at], digit) {
		at = run(text, at, digit, 2)
		at = skip(text, skip(text, at, "."), " ")
		if at < 0 {
			return -1
		}
		if text[at-1] != ' ' {
			return -1
		}
		if at = month(text, afterOf(text, at)); at < 0 {
			return -1
		}
		at = skip(text, at, ".")
		if hasFold(text, at, " de ") {
			at += len(" de")
		}
		return yearAt(text, at)
	}
	if at = month(text, at); at < 0 {
		return -1
	}
	at = skip(text, at, ".")
	if at >= len(text) || text[at] != ' ' {
		return -1
	}
	day := run(text, at+1, digit, 2)
	if day == at+1 {
		return -1
	}
	for _, ordinal := range [...]string{"st", "nd", "rd", "th"} {
		if hasFold(text, day, ordinal) {
			day += len(ordinal)
			break
		}
	}
	return yearAt(text, skip(text, day, ","))
}

// skip passes over a text that may stand at the place.
func skip(text string, at int, what string) int {
	if strings.HasPrefix(text[at:], what) {
		return at + len(what)
	}
	return at
}

func afterOf(text string, at int) int {
	if hasFold(text, at, "de ") || hasFold(text, at, "of ") {
		return at + len("de ")
	}
	return at
}

func hasFold(text string, at int, what string) bool {
	return at+len(what) <= len(text) && strings.EqualFold(text[at:at+len(what)], what)
}

// month returns the end of three to ten letters, -1 where there are fewer or more.
func month(text string, at int) int {
	n := 0
	for at < len(text) {
		r, size := rune(text[at]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(text[at:])
		}
		if !unicode.IsLetter(r) {
			break
		}
		if n++; n > 10 {
			return -1
		}
		at += size
	}
	if n < 3 {
		return -1
	}
	return at
}

// yearAt returns the end of a space and a year.
func yearAt(text string, at int) int {
	if at >= len(text) || text[at] != ' ' {
		return -1
	}
	end := run(text, at+1, digit, 5)
	if end-at-1 != 4 || !boundary(text, end) {
		return -1
	}
	return end
}

// findPhone: \+[0-9](?:[ ().-]?[0-9]){6,14}
func findPhone(text string) (int, int) {
	const least, most = 6, 14
	for from := 0; ; {
		at := strings.IndexByte(text[from:], '+')
		if at < 0 {
			return -1, -1
		}
		at += from
		from = at + 1
		if from >= len(text) || !is(text[from], digit) {
			continue
		}
		end, n := from+1, 0
		for ; n < most; n++ {
			next := end
			if next < len(text) && strings.IndexByte(" ().-", text[next]) >= 0 {
				next++
			}
			if next >= len(text) || !is(text[next], digit) {
				break
			}
			end = next + 1
		}
		if n >= least {
			return at, end
		}
	}
}

// findHost: \b[a-z0-9](?:[a-z0-9-]{0,62}\.)+[a-z]{2,24}\b
func findHost(text string) (int, int) {
	for at := 0; at < len(text); at++ {
		if !is(text[at], alnum) {
			continue
		}
		if !boundary(text, at) {
			continue
		}
		end, chain := hostAt(text, at)
		if end >= 0 {
			return at, end
		}
		// What begins later in the same chain of labels ends like it.
		at = max(at, chain-1)
	}
	return -1, -1
}

// hostAt returns the end of a host, -1 where there is none, and where the chain of
// labels ends.
func hostAt(text string, at int) (end, chain int) {
	const mostLabel, leastTop, mostTop = 62, 2, 24
	end, chain = -1, at
	for next := at + 1; ; {
		stop := next
		for stop < len(text) && stop-next < mostLabel && (is(text[stop], alnum) || text[stop] == '-') {
			stop++
		}
		if stop >= len(text) || text[stop] != '.' {
			return end, chain
		}
		next, chain = stop+1, stop+1
		top := run(text, next, letter, mostTop+1)
		if n := top - next; n >= leastTop && n <= mostTop && boundary(text, top) {
			end = top
		}
	}
}

// currencies are codes of ISO 4217 that stand before an amount or after it, without a
// space; one that stands apart is no part of it anyway.
var currencies = strings.Fields("eur usd gbp chf jpy cny inr sek nok dkk pln czk huf aud cad nzd brl mxn zar try")

func isCurrency(text string, at int) bool {
	if at < 0 || at+3 > len(text) {
		return false
	}
	for _, code := range currencies {
		if strings.EqualFold(text[at:at+3], code) {
			return true
		}
	}
	return false
}

// findAmount: \b(?:currency)[0-9](?:[0-9.,']*[0-9])?\b|\b[0-9](?:[0-9.,']*[0-9])?(?:currency)\b
func findAmount(text string) (int, int) {
	for at := 0; at < len(text); at++ {
		if !is(text[at], digit) {
			continue
		}
		end := at + 1
		for next := end; next < len(text) && text[next] != ' ' && is(text[next], ofNumber); next++ {
			if is(text[next], digit) {
				end = next + 1
			}
		}
		if isCurrency(text, at-3) && boundary(text, at-3) {
			for cut := end; cut > at; cut-- {
				if is(text[cut-1], digit) && boundary(text, cut) {
					return at - 3, cut
				}
			}
		}
		if boundary(text, at) && isCurrency(text, end) && boundary(text, end+3) {
			return at, end + 3
		}
		at = run(text, at, digit, len(text)) - 1
	}
	return -1, -1
}

// findID: [#]?[a-z0-9]+(?:[-_/#][a-z0-9]+)+|[#]?[a-z]+[0-9][a-z0-9]*|[0-9]+[a-z][a-z0-9]*|#[0-9]+
func findID(text string) (int, int) {
	for at := 0; at < len(text); at++ {
		begin := at
		if text[at] == '#' && at+1 < len(text) {
			begin++
		}
		if !is(text[begin], alnum) {
			continue
		}
		end := run(text, begin, alnum, len(text))
		next := end
		for next+1 < len(text) && strings.IndexByte("-_/#", text[next]) >= 0 && is(text[next+1], alnum) {
			next = run(text, next+1, alnum, len(text))
		}
		if next > end {
			return at, next
		}
		digits := run(text, begin, digit, len(text))
		switch {
		case begin > at && digits > begin:
			return at, digits
		case digits == begin && run(text, begin, letter, len(text)) < end, digits > begin && digits < end:
			return at, end
		}
		at = end - 1
	}
	return -1, -1
}

// findNumber: [0-9](?:[0-9.,']*(?:[ \x{00a0}][0-9.,']*){0,12}[0-9])?
func findNumber(text string) (int, int) {
	at := strings.IndexAny(text, "0123456789")
	if at < 0 {
		return -1, -1
	}
	const mostGroups = 12
	end := at + 1
	for next, groups := end, 0; next < len(text); {
		if text[next] == ' ' || strings.HasPrefix(text[next:], "\u00a0") {
			if groups++; groups > mostGroups {
				return at, end
			}
		}
		switch {
		case is(text[next], ofNumber):
			next++
			if is(text[next-1], digit) {
				end = next
			}
		case strings.HasPrefix(text[next:], "\u00a0"):
			next += len("\u00a0")
		default:
			return at, end
		}
	}
	return at, end
}
