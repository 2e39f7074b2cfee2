// SPDX-License-Identifier: Apache-2.0

package atoms

import (
	"strings"
	"unicode/utf8"
)

// amounts returns the numbers of a token as amounts, where the text says that they are
// money: 20 EUR, $20 and 20.00 are, 20 people and 2000 cents are not.
func (f *found) amounts(text string) []Token {
	if f.tokens[0].Kind != Number || !withCents(text[f.start:f.end]) && !besideCurrency(text, f.start, f.end) {
		return nil
	}
	var all []Token
	for _, token := range f.tokens {
		if token.Kind == Number {
			all = append(all, Token{Amount, token.Text})
		}
	}
	return all
}

// withCents says whether a number has two decimals.
func withCents(number string) bool {
	cut := strings.LastIndexAny(number, ".,")
	return cut > 0 && len(number)-cut-1 == 2 && !strings.Contains(number, " ")
}

const currencySigns = "$€£¥₹₺₽₩₴฿"

// besideCurrency says whether a currency stands before or after a place, or within it, with
// a space between or none.
func besideCurrency(text string, start, end int) bool {
	if isCurrency(text, start) || isCurrency(text, end-3) {
		return true
	}
	before := strings.TrimRight(text[max(0, start-8):start], " \u00a0")
	if r, _ := utf8.DecodeLastRuneInString(before); strings.ContainsRune(currencySigns, r) {
		return true
	}
	if n := len(before); n >= 3 && isCurrency(before, n-3) && boundary(before, n-3) {
		return true
	}
	after := strings.TrimLeft(text[end:min(len(text), end+16)], " \u00a0")
	if r, _ := utf8.DecodeRuneInString(after); strings.ContainsRune(currencySigns, r) {
		return true
	}
	for _, word := range currencyWords {
		if hasFold(after, 0, word) && (len(after) == len(word) || !is(after[len(word)], letter)) {
			return true
		}
	}
	return isCurrency(after, 0) && boundary(after, 3)
}

// currencyWords are the names of units of money, not of their parts.
var currencyWords = strings.Fields("euro euros dollar dollars pound pounds quid bucks franken francs franc yen rupees kronor kroner krona zloty złoty libras pesos")
