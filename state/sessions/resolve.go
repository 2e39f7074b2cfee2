// SPDX-License-Identifier: Apache-2.0

package sessions

import (
	"regexp"
	"slices"
	"strings"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
)

// Values returns what the session knows of values among arguments, by path; of one
// of which it knows nothing there is nothing. Where the tool is a sink it also tells
// what they carry.
func (m *Machine) Values(id ID, h *atoms.Hasher, leaves []atoms.Leaf, sink bool) []*writv1.ValueProvenance {
	var out []*writv1.ValueProvenance
	for i := range leaves {
		leaf := &leaves[i]
		if leaf.Bool || len(out) >= mostLabels {
			continue
		}
		label := m.Label(id, hashed(h, decisive(leaf)))
		if sink {
			label = m.carried(id, h, leaf, label)
		}
		if label != nil {
			label.Path = leaf.Path
			out = append(out, label)
		}
	}
	return out
}

func decisive(leaf *atoms.Leaf) [][]atoms.Token {
	if leaf.Number {
		return atoms.DecisiveNumber(leaf.Text)
	}
	return atoms.Decisive(leaf.Text)
}

func hashed(h *atoms.Hasher, alternatives [][]atoms.Token) [][]uint64 {
	out := make([][]uint64, len(alternatives))
	for i, tokens := range alternatives {
		out[i] = hash(h, tokens)
	}
	return out
}

func hash(h *atoms.Hasher, tokens []atoms.Token) []uint64 {
	out := make([]uint64, len(tokens))
	for i, token := range tokens {
		out[i] = uint64(h.Atom(token))
	}
	return out
}

// carried adds what a value carries, in any encoding that is read, to its label.
func (m *Machine) carried(id ID, h *atoms.Hasher, leaf *atoms.Leaf, label *writv1.ValueProvenance) *writv1.ValueProvenance {
	out := label
	if out == nil {
		out = &writv1.ValueProvenance{}
	}
	if leaf.Number {
		out.Classification, out.ForeignTenant = m.Carries(id, hash(h, atoms.ObserveNumber(leaf.Text).Tokens))
		return out
	}
	readings, truncated := atoms.Egress(leaf.Text)
	out.Truncated = truncated
	secrets, said := 0, 0
	for _, reading := range readings {
		found := atoms.Observe(reading)
		class, foreign := m.Carries(id, hash(h, append(found.Tokens, atoms.Phrases(reading).Tokens...)))
		out.Classification, out.ForeignTenant = max(out.Classification, class), out.ForeignTenant || foreign
		out.Truncated = out.Truncated || found.Truncated
		for _, secret := range atoms.Secrets(reading) {
			secrets++
			whole := atoms.Observe(reading[secret.Start:secret.End]).Tokens[:1]
			if user, _ := m.Said(id, hash(h, whole)[0]); user {
				said++
			}
		}
	}
	out.SecretsOfUser = secrets > 0 && said == secrets
	return out
}

// dated are texts that say a time: planners compute them.
var dated = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}([T ][0-9:.+Zz-]*)?$`)

// Selects says whether the values of a lookup are of the request: each text is, or
// consists of words of the request. Numbers that count and times do not matter, for
// planners compute them, unless something else than the request said them.
func (m *Machine) Selects(id ID, h *atoms.Hasher, leaves []atoms.Leaf, labels []*writv1.ValueProvenance) bool {
	for i := range leaves {
		leaf := &leaves[i]
		if leaf.Bool || leaf.Text == "" {
			continue
		}
		at := slices.IndexFunc(labels, func(l *writv1.ValueProvenance) bool {
			return l.GetPath() == leaf.Path && l.GetTrust() != writv1.Trust_TRUST_UNSPECIFIED
		})
		switch {
		case at >= 0 && of(labels[at]):
		case leaf.Number && len(strings.TrimLeft(leaf.Text, "-")) < leastNumber:
		case (leaf.Number || dated.MatchString(leaf.Text)) && at < 0:
		case leaf.Number:
			return false
		case !m.spoken(id, h, leaf.Text):
			return false
		}
	}
	return true
}

func of(l *writv1.ValueProvenance) bool {
	return l.GetTrust() == writv1.Trust_TRUST_TRUSTED && (l.GetOfRequest() || slices.Contains(l.GetSources(), User))
}

// spoken says whether all words of a text are of the request.
func (m *Machine) spoken(id ID, h *atoms.Hasher, text string) bool {
	words := atoms.Words(text)
	for _, word := range words {
		if user, request := m.Said(id, uint64(h.Atom(word))); !user && !request {
			return false
		}
	}
	return len(words) > 0
}
