// SPDX-License-Identifier: Apache-2.0

package sessions

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
)

const (
	// mostAtoms bounds the atoms of one observation, so that its record fits.
	mostAtoms = 6000
	// namingWords is how long a trusted text may be for its runs of words to be
	// known as values: names stand in short texts.
	namingWords = 60
	// leastWhole is how many letters a short classified text has at least, so that
	// a "yes" is not found everywhere.
	leastWhole = 6
	// leastNumber is from which on a number is taken for a name of something, and
	// not for a count.
	leastNumber = 4
	// mostLabels is the bound of Facts.values.
	mostLabels = 256
)

// Worth is what an observed value is worth.
type Worth struct {
	Trust          writv1.Trust
	Classification writv1.Classification
	// Tenant says that the value names the tenant that its object belongs to.
	Tenant bool
	// Readers says that the value names somebody who may read its object, Restricted
	// that its object, or one that it stands in, has such a field: where that is empty
	// nobody may.
	Readers, Restricted bool
}

// Observed is something that a session comes to know.
type Observed struct {
	Session ID
	// Tenant is that of the session's principal.
	Tenant string
	// Source is who said it: [User], or "tool:" and a name.
	Source string
	Time   time.Time
	// Text is what was said, or JSON what a tool returned.
	Text string
	JSON []byte
	// Worth tells what the values of a field are worth, by the field's path.
	Worth func(field string) Worth
	// Selected says that values of the request selected what was looked up, and Named
	// that there was one that did: a lookup of everything is selected and not named.
	Selected, Named bool
	// Carried are the values that a call which writes carried, with what is known
	// of them.
	Carried []atoms.Leaf
	Labels  []*writv1.ValueProvenance
}

// Said says whether the user of a session said an atom, or it is of the request
// otherwise. [Machine.Said] is one, under its owner's lock.
type Said func(atom uint64) (user, request bool)

// Observation returns the record of something observed, given what the session
// knows by now. It changes nothing: [Machine.Observe] takes the record.
func Observation(h *atoms.Hasher, in Observed, said Said) *writv1.ObservationRecord {
	o := &observer{known: said, hasher: h, in: &in, groups: make(map[groupKey][]byte), record: &writv1.ObservationRecord{
		Session: in.Session[:], Source: in.Source, Time: timestamppb.New(in.Time), AtomsVersion: atoms.Version, Objects: 1,
	}}
	if in.JSON == nil {
		o.leaves, o.objects = []atoms.Leaf{{Text: in.Text}}, []atoms.Object{{Parent: -1}}
		o.record.AttestedRequest = in.Source == User
	} else {
		var err error
		if o.leaves, o.objects, o.record.Truncated, err = atoms.Leaves(in.JSON); err != nil {
			o.leaves, o.objects, o.record.Truncated = nil, nil, true
		}
		o.record.Objects = uint32(min(len(o.objects), 65535))
	}
	o.narrow()
	o.tenants()
	o.readers()
	for i := range o.leaves {
		o.leaf(&o.leaves[i])
	}
	o.carry()
	o.close()
	return o.record
}

type groupKey struct {
	object  int
	trust   writv1.Trust
	class   writv1.Classification
	request bool
	foreign bool
	// restricted says that readers, packed, are all who may read it.
	restricted bool
	readers    string
}

type observer struct {
	known   Said
	hasher  *atoms.Hasher
	in      *Observed
	leaves  []atoms.Leaf
	objects []atoms.Object
	// chosen and foreign are of the objects: which the user's words select, and
	// which are another tenant's.
	chosen, foreign []bool
	// restricted are the objects that say who may read them, may who that is.
	restricted []bool
	may        [][]uint64
	groups     map[groupKey][]byte
	count      int
	record     *writv1.ObservationRecord
}

// leaf adds the atoms of one value.
func (o *observer) leaf(leaf *atoms.Leaf) {
	if leaf.Bool {
		return
	}
	worth := o.in.Worth(leaf.Field)
	trusted := worth.Trust == writv1.Trust_TRUST_TRUSTED
	o.record.Untrusted = o.record.Untrusted || !trusted
	o.record.Classification = max(o.record.Classification, worth.Classification)
	key := groupKey{object: leaf.Object, trust: worth.Trust}
	key.request = (o.in.Named || trusted && o.in.Selected) && o.at(o.chosen, leaf.Object)
	reading := read(leaf, trusted, o.in.Source == User)
	o.record.Truncated = o.record.Truncated || reading.Truncated
	o.add(key, reading.Tokens)
	plain := key
	key.foreign = o.at(o.foreign, leaf.Object)
	if o.at(o.restricted, leaf.Object) && !worth.Readers {
		key.restricted, key.readers = true, string(packed(o.may[leaf.Object]))
	}
	marks := worth.Classification > writv1.Classification_CLASSIFICATION_PUBLIC || key.foreign || key.restricted
	if marks {
		key.class = worth.Classification
		o.mark(key, leaf)
	}
	if leaf.Number || trusted && !marks {
		return
	}
	// Who encodes something did not mean whoever named it to read it.
	plain.request = false
	for _, text := range atoms.Decoded(leaf.Text) {
		if !trusted {
			o.add(plain, atoms.Observe(text).Tokens)
		}
		if marks {
			o.mark(key, &atoms.Leaf{Text: text})
		}
	}
}

func (o *observer) at(flags []bool, object int) bool { return object < len(flags) && flags[object] }

// read returns the tokens by which a value is known. Values are named in the words
// of a user's request, and of a short trusted text.
func read(leaf *atoms.Leaf, trusted, user bool) atoms.Reading {
	switch {
	case leaf.Number:
		return atoms.ObserveNumber(leaf.Text)
	case user, trusted && strings.Count(leaf.Text, " ") < namingWords:
		return atoms.ObserveWords(leaf.Text)
	default:
		return atoms.Observe(leaf.Text)
	}
}

// mark adds the atoms by which a classified value is found again.
func (o *observer) mark(key groupKey, leaf *atoms.Leaf) {
	marks := marked(leaf)
	o.record.Truncated = o.record.Truncated || marks.Truncated
	o.add(key, marks.Tokens)
}

// marked returns the tokens by which a classified value is found again.
func marked(leaf *atoms.Leaf) atoms.Reading {
	if leaf.Number {
		if len(leaf.Text) < leastNumber {
			return atoms.Reading{}
		}
		return atoms.ObserveNumber(leaf.Text)
	}
	var out []atoms.Token
	for i, token := range atoms.Observe(leaf.Text).Tokens {
		if i == 0 && utf8.RuneCountInString(token.Text) < leastWhole || token.Kind == atoms.Host || token.Kind == atoms.Number && len(token.Text) < leastNumber {
			continue
		}
		out = append(out, token)
	}
	if utf8.RuneCountInString(leaf.Text) < leastWhole {
		return atoms.Reading{Tokens: out}
	}
	numbers, phrases := atoms.Digits(leaf.Text, "-./"), atoms.Phrases(leaf.Text)
	return atoms.Reading{
		Tokens: slices.Concat(out, numbers.Tokens, phrases.Tokens), Truncated: numbers.Truncated || phrases.Truncated,
	}
}

func (o *observer) add(key groupKey, tokens []atoms.Token) {
	for _, token := range tokens {
		if o.count >= mostAtoms {
			o.record.Truncated = true
			return
		}
		o.count++
		o.groups[key] = binary.BigEndian.AppendUint64(o.groups[key], uint64(o.hasher.Atom(token)))
	}
}

// narrow finds the objects that the user's words select. Of the objects of one
// list those are, that hold words or values of the user's which another does not
// hold as well and more; where no object of the list holds any, all are. What trusted
// fields hold counts before what others do: whoever writes those cannot have an object
// selected in place of another. What stands in an object that is not selected is not.
func (o *observer) narrow() {
	o.chosen = make([]bool, len(o.objects))
	for i := range o.chosen {
		o.chosen[i] = true
	}
	if o.in.Source == User || len(o.objects) < 2 {
		return
	}
	said, sure := o.said()
	lists := make(map[int]map[string][]int)
	for i, object := range o.objects {
		if object.Listed {
			if lists[object.Parent] == nil {
				lists[object.Parent] = make(map[string][]int)
			}
			lists[object.Parent][object.Field] = append(lists[object.Parent][object.Field], i)
		}
	}
	for _, fields := range lists {
		for _, siblings := range fields {
			choose(siblings, said, sure, o.chosen)
		}
	}
	for i, object := range o.objects {
		if object.Parent >= 0 && !o.chosen[object.Parent] {
			o.chosen[i] = false
		}
	}
}

// said returns, for each object, what of it and of the objects below it the user said,
// and what of that stands in trusted fields.
func (o *observer) said() (out, sure []map[uint64]bool) {
	generic := o.generic()
	out, sure = make([]map[uint64]bool, len(o.objects)), make([]map[uint64]bool, len(o.objects))
	for i := range out {
		out[i], sure[i] = make(map[uint64]bool), make(map[uint64]bool)
	}
	for i := range o.leaves {
		leaf := &o.leaves[i]
		if leaf.Bool || leaf.Object >= len(out) {
			continue
		}
		trusted := o.in.Worth(leaf.Field).Trust == writv1.Trust_TRUST_TRUSTED
		tokens := read(leaf, false, false).Tokens
		if !leaf.Number {
			tokens = append(tokens, atoms.Words(leaf.Text)...)
		}
		for _, token := range tokens {
			atom := uint64(o.hasher.Atom(token))
			if user, _ := o.known(atom); !user || generic[atom] {
				continue
			}
			for at := leaf.Object; at >= 0; at = o.objects[at].Parent {
				out[at][atom] = true
				if trusted {
					sure[at][atom] = true
				}
			}
		}
	}
	return out, sure
}

// generic returns the words that name what is listed and not one of it: those of the
// tool's name and of the fields. Who asks for the cheapest hotel names no hotel, though one
// of them has the word in its name.
func (o *observer) generic() map[uint64]bool {
	apart := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	found := make(map[uint64]bool)
	note := func(name string) {
		for word := range strings.FieldsFuncSeq(strings.ToLower(name), apart) {
			for _, form := range [...]string{word, strings.TrimSuffix(word, "s"), word + "s"} {
				found[uint64(o.hasher.Atom(atoms.Token{Kind: atoms.Whole, Text: form}))] = true
			}
		}
	}
	note(strings.TrimPrefix(o.in.Source, ToolSource("")))
	seen := ""
	for i := range o.leaves {
		if field := o.leaves[i].Field; field != seen {
			note(field)
			seen = field
		}
	}
	return found
}

// choose leaves chosen those of the siblings that no other dominates: that holds
// all of the user's words that it holds, and more.
func choose(siblings []int, said, sure []map[uint64]bool, chosen []bool) {
	const most = 512
	if len(siblings) < 2 || len(siblings) > most {
		return
	}
	any := slices.ContainsFunc(siblings, func(i int) bool { return len(said[i]) > 0 })
	for _, a := range siblings {
		dominated := any && len(said[a]) == 0
		for _, b := range siblings {
			switch {
			case len(sure[b]) > len(sure[a]):
				dominated = dominated || within(sure[a], sure[b])
			case len(sure[b]) == len(sure[a]) && within(sure[a], sure[b]):
				dominated = dominated || len(said[b]) > len(said[a]) && within(said[a], said[b])
			}
		}
		chosen[a] = !dominated
	}
}

func within(a, b map[uint64]bool) bool {
	for atom := range a {
		if !b[atom] {
			return false
		}
	}
	return true
}

// tenants finds the objects that name another tenant than the session's, with what
// stands in them.
func (o *observer) tenants() {
	o.foreign = make([]bool, len(o.objects))
	for i := range o.leaves {
		leaf := &o.leaves[i]
		if leaf.Object < len(o.foreign) && o.in.Worth(leaf.Field).Tenant && leaf.Text != o.in.Tenant {
			o.foreign[leaf.Object] = true
		}
	}
	for i, object := range o.objects {
		if object.Parent >= 0 && o.foreign[object.Parent] {
			o.foreign[i] = true
		}
	}
}

// carry adds what a call that writes carried and was not trusted.
func (o *observer) carry() {
	for i := range o.in.Carried {
		leaf := &o.in.Carried[i]
		trusted := slices.ContainsFunc(o.in.Labels, func(l *writv1.ValueProvenance) bool {
			return l.GetPath() == leaf.Path && l.GetTrust() == writv1.Trust_TRUST_TRUSTED
		})
		if trusted || leaf.Bool {
			continue
		}
		for _, token := range read(leaf, false, false).Tokens {
			if o.count >= mostAtoms {
				o.record.Truncated = true
				return
			}
			o.count++
			o.record.Carried = binary.BigEndian.AppendUint64(o.record.Carried, uint64(o.hasher.Atom(token)))
		}
	}
}

// close puts the groups into the record, in one order.
func (o *observer) close() {
	const most = 4096
	keys := make([]groupKey, 0, len(o.groups))
	for key := range o.groups {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b groupKey) int {
		return cmp.Or(cmp.Compare(a.object, b.object), cmp.Compare(a.trust, b.trust), cmp.Compare(a.class, b.class), cmp.Compare(a.readers, b.readers))
	})
	if len(keys) > most {
		keys, o.record.Truncated = keys[:most], true
	}
	for _, key := range keys {
		o.record.Groups = append(o.record.Groups, &writv1.ObservedGroup{
			Object: uint32(min(key.object, 65535)), Trust: key.trust, Classification: key.class,
			OfRequest: key.request, ForeignTenant: key.foreign, Atoms: o.groups[key],
			Restricted: key.restricted, Readers: []byte(key.readers),
		})
	}
}
