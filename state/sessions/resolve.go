// SPDX-License-Identifier: Apache-2.0

package sessions

import (
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
)

// Asked is a value among arguments as it is asked for: its atoms, made before the
// session is read.
type Asked struct {
	path         string
	alternatives [][]uint64
	// loose are those of what the value looks like, where it is something else.
	loose [][]uint64
	// sink says that what the value carries is asked for: carried are the atoms of
	// all that it may be read as, secrets those of what looks like a secret in it.
	sink             bool
	carried, secrets []uint64
	truncated        bool
	// audience are those to whom it goes, by the names of each.
	audience [][]uint64
}

// Ask prepares the values among arguments to be asked for. Where the tool is a sink
// what they carry is asked for too.
func Ask(h *atoms.Hasher, leaves []atoms.Leaf, sink bool) []Asked {
	var out []Asked
	audience := audienceOf(h, leaves)
	for i := range leaves {
		leaf := &leaves[i]
		if leaf.Bool || len(out) >= mostLabels {
			continue
		}
		asked := Asked{path: leaf.Path, alternatives: hashed(h, decisive(leaf)), sink: sink, audience: audience}
		if !leaf.Number {
			asked.loose = hashed(h, atoms.Loose(leaf.Text))
		}
		if sink {
			asked.carry(h, leaf)
		}
		out = append(out, asked)
	}
	return out
}

// Values returns what a session knows of values among arguments; of one of which it
// knows nothing there is nothing.
func (m *Machine) Values(id ID, asked []Asked) []*writv1.ValueProvenance {
	var out []*writv1.ValueProvenance
	size := 0
	for i := range asked {
		label := m.Label(id, asked[i].alternatives)
		if label == nil {
			label = m.looks(id, asked[i].loose)
		}
		if asked[i].sink {
			label = m.carries(id, &asked[i], label)
		}
		if label != nil {
			label.Path = asked[i].path
			if size += proto.Size(label); size > summaryBytes {
				return out
			}
			out = append(out, label)
		}
	}
	return out
}

// looks returns what is known of a value that is not what it looks like: who said what
// it looks like, and that it is not to be trusted.
func (m *Machine) looks(id ID, loose [][]uint64) *writv1.ValueProvenance {
	label := m.Label(id, loose)
	if label == nil {
		return nil
	}
	return &writv1.ValueProvenance{
		Sources: label.GetSources(), Trust: writv1.Trust_TRUST_UNTRUSTED,
		Classification: label.GetClassification(), ForeignTenant: label.GetForeignTenant(),
	}
}

func decisive(leaf *atoms.Leaf) [][]atoms.Token {
	if leaf.Number {
		return atoms.DecisiveNumber(leaf.Text, leaf.PerUnit)
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

// carry notes what a value may carry, in any encoding that is read.
func (a *Asked) carry(h *atoms.Hasher, leaf *atoms.Leaf) {
	if leaf.Number {
		a.carried = hash(h, atoms.ObserveNumber(leaf.Text).Tokens)
		return
	}
	var readings []string
	readings, a.truncated = atoms.Egress(leaf.Text)
	for _, reading := range readings {
		found := atoms.Observe(reading)
		a.truncated = a.truncated || found.Truncated
		numbers := atoms.Digits(reading, " -./")
		a.truncated = a.truncated || numbers.Truncated
		a.carried = append(a.carried, hash(h, slices.Concat(found.Tokens, atoms.Phrases(reading).Tokens, numbers.Tokens))...)
		for _, secret := range atoms.Secrets(reading) {
			a.secrets = append(a.secrets, hash(h, atoms.Observe(reading[secret.Start:secret.End]).Tokens[:1])...)
		}
	}
}

// carries adds what a value carries to its label.
func (m *Machine) carries(id ID, a *Asked, label *writv1.ValueProvenance) *writv1.ValueProvenance {
	out := label
	if out == nil {
		out = &writv1.ValueProvenance{}
	}
	class, foreign := m.Carries(id, a.carried)
	out.Classification, out.ForeignTenant = max(out.Classification, class), out.ForeignTenant || foreign
	out.Truncated = a.truncated
	if s, ok := m.sessions[id]; ok {
		out.BeyondReaders = s.beyond(a.carried, a.audience)
	}
	out.SecretsOfUser = len(a.secrets) > 0 && !slices.ContainsFunc(a.secrets, func(atom uint64) bool {
		user, _ := m.Said(id, atom)
		return !user
	})
	return out
}

// dated are texts that say a time: planners compute them.
var dated = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}([T ][0-9:.+Zz-]*)?$`)

// Selects says whether the values of a lookup are of the request: each text is, or
// consists of words of the request. Numbers that count and times do not matter, for
// planners compute them, unless something else than the request said them. Named says
// that there was a value that is of the request.
func Selects(h *atoms.Hasher, leaves []atoms.Leaf, labels []*writv1.ValueProvenance, said Said) (selected, named bool) {
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
			named = true
		case leaf.Number && len(strings.TrimLeft(leaf.Text, "-")) < leastNumber:
		case (leaf.Number || dated.MatchString(leaf.Text)) && at < 0:
		case leaf.Number:
			return false, false
		case !spoken(h, leaf.Text, said):
			return false, false
		default:
			named = true
		}
	}
	return true, named
}

func of(l *writv1.ValueProvenance) bool {
	return l.GetTrust() == writv1.Trust_TRUST_TRUSTED && (l.GetOfRequest() || slices.Contains(l.GetSources(), User))
}

// operator is the name of a field before what a search demands of it, as in from:marta.
// These narrow what the word finds. Others, or a sign before one, may mean all that it
// does not find.
var operator = regexp.MustCompile(`(?i)(^|\s)(?:from|to|cc|bcc|sender|recipient|author|subject|title|name|filename|label|tag):([^\s/:])`)

// spoken says whether all words of a text are of the request. The names of fields that
// are searched are no values.
func spoken(h *atoms.Hasher, text string, said Said) bool {
	words := atoms.Words(operator.ReplaceAllString(text, "$1$2"))
	for _, word := range words {
		if user, request := said(uint64(h.Atom(word))); !user && !request {
			return false
		}
	}
	return len(words) > 0
}
