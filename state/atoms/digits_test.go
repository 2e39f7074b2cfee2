// SPDX-License-Identifier: Apache-2.0

package atoms_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-dev/writ/state/atoms"
)

func TestGroupsOfDigitsAreTheNumberThatTheyMake(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"your code is 884-201-773.":     {"884201", "884201773", "201773"},
		"88.42.01.773":                  {"884201", "884201773", "4201773"},
		"call 1 884 201 773":            {"884201773"},
		"0049-170-1234567":              {"491701234567", "1701234567"},
		"on 2026-02-03 at 09:30":        nil,
		"2026-02-03T09:30, 03.02.2026":  nil,
		"by 02/2026 or 2026-02":         nil,
		"884201773 alone is a number":   nil,
		"12-34 is too short, 1 2 3 4 5": nil,
		"884--201, 884 - 201, 884;201":  nil,
		"":                              nil,
	} {
		var got []string
		for _, token := range atoms.Digits(text, " -./").Tokens {
			if token.Kind != atoms.Number {
				t.Errorf("%q: a token of kind %d", text, token.Kind)
			}
			got = append(got, token.Text)
		}
		for _, number := range want {
			if !slices.Contains(got, number) {
				t.Errorf("%q: %q, want %s in it", text, got, number)
			}
		}
		if want == nil && got != nil {
			t.Errorf("%q: %q, want nothing", text, got)
		}
	}
	if got := atoms.Digits("884 201 773", "-").Tokens; got != nil {
		t.Errorf("digits with other signs between them: %v", got)
	}
}

func TestANumberIsFoundHoweverItIsGrouped(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		groups := rapid.SliceOfN(rapid.StringMatching(`[1-9][0-9]{2,3}`), 2, 6).Draw(t, "groups")
		signs := rapid.SliceOfN(rapid.SampledFrom([]string{" ", "-", ".", "/"}), len(groups), len(groups)).Draw(t, "signs")
		text, number := "x", ""
		for i, group := range groups {
			if i > 0 {
				text += signs[i]
			}
			text, number = text+group, number+group
		}
		plain := len(groups) > 3 || !slices.ContainsFunc(groups, func(g string) bool { return len(g) == 4 && (g[:2] == "19" || g[:2] == "20") })
		if got := atoms.Digits(text+" y", " -./"); plain && !slices.Contains(got.Tokens, atoms.Token{Kind: atoms.Number, Text: number}) {
			t.Errorf("%q: %v, want %s", text, got, number)
		}
	})
}
