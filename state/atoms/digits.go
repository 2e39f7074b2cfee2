// SPDX-License-Identifier: Apache-2.0

package atoms

import "strings"

const (
	// leastDigits and mostDigits bound what is taken for a number that was written in
	// groups: fewer are a count or a part of a date, and more no code or account.
	leastDigits, mostDigits = 6, 34
	// mostGroups bounds its groups.
	mostGroups = 10
	// mostRows bounds the numbers of a text: some 1,000 groups in a row, or a table of
	// some 800 lines of prices.
	mostRows = 2 * MostTokens
)

// Digits returns the numbers that groups of digits are when what stands between them
// is left out: 884-201-773 is 884201773. Between has the signs of which one may stand
// between two groups. Each row of neighbouring groups is one number, for a group
// before or after it may be something else's. Days and months are none. A reading that is
// truncated lacks numbers: who looks for what may not leave MUST NOT take it for all.
func Digits(text, between string) Reading {
	text, cut := clip(text)
	r := Reading{Truncated: cut}
	var groups []string
	for at := 0; at < len(text); {
		if !is(text[at], digit) {
			at++
			continue
		}
		end := run(text, at, digit, len(text))
		if !joins(text, at, between) {
			groups = groups[:0]
		}
		groups = append(groups, text[at:end])
		if r.Tokens = append(r.Tokens, rows(groups)...); len(r.Tokens) > mostRows {
			return Reading{Tokens: r.Tokens[:mostRows], Truncated: true}
		}
		at = end
	}
	return r
}

// joins says whether one sign of those named, and a digit before it, stand before at.
func joins(text string, at int, between string) bool {
	return at >= 2 && strings.IndexByte(between, text[at-1]) >= 0 && is(text[at-2], digit)
}

// rows returns the numbers that the last of some groups ends, of two groups or more.
func rows(groups []string) []Token {
	var found []Token
	number := ""
	for i := len(groups) - 1; i >= max(0, len(groups)-mostGroups); i-- {
		if number = groups[i] + number; len(number) > mostDigits {
			break
		}
		if exact, ok := whole(number); ok && i < len(groups)-1 && len(number) >= leastDigits && !dates(groups[i:]) {
			found = append(found, Token{Number, exact})
		}
	}
	return found
}

// dates says whether groups of digits are a day or a month of a year of these times,
// in any order: 2026-02-03, 03.02.2026, 02/2026.
func dates(groups []string) bool {
	years := 0
	for _, group := range groups {
		switch {
		case len(group) == 4 && (group[:2] == "19" || group[:2] == "20"):
			years++
		case len(group) > 2:
			return false
		}
	}
	return years == 1 && len(groups) <= 3
}
