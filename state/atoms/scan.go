// SPDX-License-Identifier: Apache-2.0

package atoms

import (
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/idna"
)

// found is a typed token in a text, at its place; the first of its tokens is what
// it is, the others what it also says.
type found struct {
	start, end int
	tokens     []Token
}

// pattern is a form of typed tokens. The first pattern that matches at a place has it.
type pattern struct {
	find finder
	read func(string) []Token
	// shorter says that a match that is not what it looks like may be a shorter one
	// and further words.
	shorter bool
}

var patterns = []pattern{
	{findURL, readURL, false},
	{findAddress, readAddress, false},
	{findIBAN, readIBAN, true},
	{findDate, readDate, false},
	{findLongDate, readLongDate, false},
	{findPhone, readPhone, false},
	{findHost, readHost, false},
	{findAmount, readAmount, false},
	{findID, readID, false},
	{findNumber, readNumber, true},
}

// scan returns the typed tokens of a text, in their order, none within another.
func scan(text string) []found {
	var all []found
	taken := make([]bool, len(text))
	for i := range patterns {
		p := &patterns[i]
		for from, count := 0, 0; from < len(text) && count < MostTokens; count++ {
			for from < len(text) && taken[from] {
				from++
			}
			start, end := p.find(text[from:])
			if start < 0 {
				break
			}
			start, end = from+start, from+end
			if at := slices.Index(taken[start:end], true); at >= 0 {
				// What is taken ends a match, and another may begin after it.
				limit := start + at
				if start, end = p.find(text[from:limit]); start < 0 {
					from = limit
					continue
				}
				start, end = from+start, from+end
			}
			f, ok := p.take(text, start, end)
			if from = end; !ok && p.shorter {
				// What is not one may hide one that begins at a later word.
				from = start + max(1, strings.IndexByte(text[start:end]+" ", ' '))
			}
			if !ok {
				continue
			}
			all, from = append(all, f), f.end
			for at := f.start; at < f.end; at++ {
				taken[at] = true
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int { return a.start - b.start })
	return all
}

// take reads a match. What follows an account number may look like more of it: then
// the match is made shorter, by words.
func (p *pattern) take(text string, start, end int) (found, bool) {
	for end > start {
		match := text[start:end]
		if hides(match) || mixes(match) {
			return found{}, false
		}
		if tokens := p.read(match); len(tokens) > 0 {
			return found{start, end, tokens}, true
		}
		if !p.shorter {
			return found{}, false
		}
		end = start + max(0, strings.LastIndexByte(match, ' '))
	}
	return found{}, false
}

func readURL(text string) []Token {
	text = strings.TrimRight(text, ".,;:!?)]")
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil
	}
	host := hostForm(u.Hostname())
	u.Scheme = strings.ToLower(u.Scheme)
	port := u.Port()
	u.Host = host
	if port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		u.Host += ":" + port
	}
	if u.Path == "/" && u.RawQuery == "" {
		u.Path = ""
	}
	return []Token{{URL, u.String()}, {Host, host}}
}

// hostForm returns the one form of a host: that of the DNS (IDNA 2008, RFC 5891), in which
// münchen.de and xn--mnchen-3ya.de are one.
func hostForm(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		return ascii
	}
	return host
}

func readAddress(text string) []Token {
	text = strings.ToLower(text)
	at := strings.LastIndexByte(text, '@')
	if !strings.Contains(text[at:], ".") {
		return nil
	}
	return []Token{{Address, text}, {Host, text[at+1:]}}
}

func readHost(text string) []Token {
	return []Token{{Host, strings.ToLower(text)}}
}

// readIBAN reads an account number whose check digits are right (ISO 13616: the
// number that it stands for is 1 modulo 97).
func readIBAN(text string) []Token {
	account := strings.ToUpper(strings.ReplaceAll(text, " ", ""))
	if len(account) < 15 || len(account) > 34 {
		return nil
	}
	digits := strings.Builder{}
	for _, r := range account[4:] + account[:4] {
		if r >= 'A' {
			digits.WriteString(strconv.Itoa(int(r-'A') + 10))
			continue
		}
		digits.WriteRune(r)
	}
	number, ok := new(big.Int).SetString(digits.String(), 10)
	if !ok || new(big.Int).Mod(number, big.NewInt(97)).Int64() != 1 {
		return nil
	}
	return []Token{{IBAN, account}}
}

func readPhone(text string) []Token {
	return []Token{{Phone, "+" + onlyDigits(text)}}
}

func onlyDigits(text string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, text)
}

// readAmount reads an amount with its currency: 20EUR and EUR20 are 20, and names too.
func readAmount(text string) []Token {
	number := strings.TrimFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	return append(readNumber(number), Token{ID, strings.ToLower(text)})
}

// readID reads a name that has a digit in it.
func readID(text string) []Token {
	if len(text) < 2 || !strings.ContainsAny(text, "0123456789") {
		return nil
	}
	name := strings.ToLower(strings.TrimPrefix(text, "#"))
	if number, ok := decimal(name); ok && plain.MatchString(name) {
		return []Token{{ID, name}, {Number, number}}
	}
	return []Token{{ID, name}}
}

// readDate reads 2026-05-01, 01.05.2026 (the day first) and 05/01/2026, which says
// both days that it may be.
func readDate(text string) []Token {
	parts := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("-./", r) })
	n := make([]int, 3)
	for i := range n {
		n[i], _ = strconv.Atoi(parts[i])
	}
	var days []Token
	add := func(y, m, d int) {
		if day := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC); day.Day() == d && int(day.Month()) == m {
			token := Token{Date, day.Format(time.DateOnly)}
			if !slices.Contains(days, token) {
				days = append(days, token)
			}
		}
	}
	if strings.Contains(text, "-") {
		add(n[0], n[1], n[2])
		return days
	}
	add(n[2], n[1], n[0])
	if strings.Contains(text, "/") {
		add(n[2], n[0], n[1])
	}
	return days
}

func readLongDate(text string) []Token {
	var day, year, month int
	for _, word := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return strings.ContainsRune(" .,", r) }) {
		number, err := strconv.Atoi(strings.TrimRight(word, "stndrh"))
		switch {
		case err == nil && number > 31:
			year = number
		case err == nil:
			day = number
		case monthOf(word) > 0:
			month = monthOf(word)
		}
	}
	made := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if month == 0 || day == 0 || year == 0 || made.Day() != day {
		return nil
	}
	return []Token{{Date, made.Format(time.DateOnly)}}
}

// months are the names of months, by how they begin.
var months = [12][]string{
	{"jan", "ene", "gen", "sty"},
	{"feb", "fév", "fev", "lut"},
	{"mar", "mär", "maa", "mrt"},
	{"apr", "avr", "abr", "kwi"},
	{"may", "mai", "mag", "mei", "maj"},
	{"jun", "jui", "giu", "cze"},
	{"jul", "juil", "lug", "lip"},
	{"aug", "aoû", "ago", "sie"},
	{"sep", "set", "wrz"},
	{"oct", "okt", "ott", "out", "paź"},
	{"nov", "lis"},
	{"dec", "dez", "déc", "dic", "gru"},
}

func monthOf(word string) int {
	best, length := 0, 0
	for i, names := range months {
		for _, name := range names {
			if strings.HasPrefix(word, name) && len(name) > length {
				best, length = i+1, len(name)
			}
		}
	}
	return best
}

var (
	grouped = regexp.MustCompile(`^[0-9]{1,3}(?:[,.' \x{00a0}][0-9]{3})+$`)
	plain   = regexp.MustCompile(`^[0-9]+$`)
)

// readNumber reads a number as people write it: 1,234.50 and 1.234,50 are one. One
// that may be either says both.
func readNumber(text string) []Token {
	var all []Token
	add := func(whole, fraction string) {
		if !plain.MatchString(whole) && !grouped.MatchString(whole) || fraction != "" && !plain.MatchString(fraction) {
			return
		}
		if exact, ok := decimal(onlyDigits(whole) + "." + fraction + "0"); ok {
			if token := (Token{Number, exact}); !slices.Contains(all, token) {
				all = append(all, token)
			}
		}
	}
	if cut := strings.LastIndexAny(text, ".,"); cut >= 0 {
		add(text[:cut], text[cut+1:])
	}
	add(text, "")
	if len(all) > 0 && strings.Contains(text, " ") {
		// Groups of thousands may be numbers that stand beside each other.
		for part := range strings.FieldsSeq(text) {
			all = append(all, readNumber(part)...)
		}
	}
	return all
}

// mostExponent bounds the numbers that are read, so that none is a long one.
const mostExponent = 64

// decimal returns the one form of a decimal number: no exponent, no zeros that say
// nothing, no sign of zero.
func decimal(text string) (string, bool) {
	if len(text) > 2*mostExponent {
		return "", false
	}
	if exact, ok := whole(text); ok {
		return exact, true
	}
	return decimalAny(text)
}

func decimalAny(text string) (string, bool) {
	if cut := strings.IndexAny(text, "eE"); cut >= 0 {
		if exponent, err := strconv.Atoi(text[cut+1:]); err != nil || exponent > mostExponent || exponent < -mostExponent {
			return "", false
		}
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return "", false
	}
	if r.IsInt() {
		return r.Num().String(), true
	}
	out := r.FloatString(2 * mostExponent)
	return strings.TrimRight(out, "0"), true
}

// whole is [decimal] of a number without sign and exponent, whose fraction, if it has
// one, is digits.
func whole(text string) (string, bool) {
	point := run(text, 0, digit, len(text))
	if point == 0 {
		return "", false
	}
	out := text[:point]
	if point < len(text) {
		if text[point] != '.' || point+1 == len(text) || run(text, point+1, digit, len(text)) < len(text) {
			return "", false
		}
		if out = strings.TrimRight(text, "0"); out[len(out)-1] == '.' {
			out = out[:point]
		}
	}
	for len(out) > 1 && out[0] == '0' && out[1] != '.' {
		out = out[1:]
	}
	return out, true
}
