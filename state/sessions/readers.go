// SPDX-License-Identifier: Apache-2.0

package sessions

import (
	"encoding/binary"
	"slices"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
)

const (
	// mostReaders bounds the readers of one object, mostReaderSets the sets of a
	// session (ObservedGroup.readers, HeldSession.readers).
	mostReaders    = 64
	mostReaderSets = 64
)

// readers finds the objects that say who may read them, with what stands below: there
// both must say so.
func (o *observer) readers() {
	o.restricted, o.may = make([]bool, len(o.objects)), make([][]uint64, len(o.objects))
	restricts := make([]bool, len(o.objects))
	for i := range o.leaves {
		leaf := &o.leaves[i]
		if leaf.Object >= len(o.objects) {
			continue
		}
		worth := o.in.Worth(leaf.Field)
		if !worth.Readers {
			restricts[leaf.Object] = restricts[leaf.Object] || worth.Restricted
			continue
		}
		o.restricted[leaf.Object] = true
		for _, token := range nameOf(leaf) {
			o.may[leaf.Object] = append(o.may[leaf.Object], uint64(o.hasher.Atom(token)))
		}
	}
	for i, object := range o.objects {
		o.may[i] = setOf(o.may[i])
		above := object.Parent
		if above < 0 || !o.restricted[above] {
			o.restricted[i] = o.restricted[i] || restricts[i]
			continue
		}
		if !o.restricted[i] {
			o.restricted[i], o.may[i] = true, o.may[above]
			continue
		}
		o.may[i] = both(o.may[i], o.may[above])
	}
}

// nameOf returns the tokens by which somebody is named: the whole value.
func nameOf(leaf *atoms.Leaf) []atoms.Token {
	var names []atoms.Token
	for _, alternative := range decisive(leaf) {
		if len(alternative) == 1 {
			names = append(names, alternative[0])
		}
	}
	return names
}

// setOf sorts atoms and drops what is repeated or too much.
func setOf(atoms []uint64) []uint64 {
	slices.Sort(atoms)
	atoms = slices.Compact(atoms)
	return atoms[:min(len(atoms), mostReaders)]
}

func both(a, b []uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(a), func(atom uint64) bool { return !slices.Contains(b, atom) })
}

func packed(atoms []uint64) []byte {
	var out []byte
	for _, atom := range atoms {
		out = binary.BigEndian.AppendUint64(out, atom)
	}
	return out
}

// readerSet returns the place of a set among the session's, from 1. When there are too
// many the first, of nobody, stands for it.
func (s *session) readerSet(of []uint64) uint32 {
	for i, known := range s.readers {
		if slices.Equal(known, of) {
			return uint32(i) + 1 //nolint:gosec // at most mostReaderSets
		}
	}
	if len(s.readers) == 0 {
		s.readers = append(s.readers, nil)
		if len(of) == 0 {
			return 1
		}
	}
	if len(s.readers) == mostReaderSets {
		return 1
	}
	s.readers = append(s.readers, of)
	return uint32(len(s.readers)) //nolint:gosec // at most mostReaderSets
}

// restrict notes who may read a value. Who may not read one of the things that hold it may
// not read it.
func (s *session) restrict(v *value, group *writv1.ObservedGroup) {
	if !group.GetRestricted() {
		return
	}
	of := slices.Collect(unpack(group.GetReaders()))
	if v.readers > 0 {
		of = both(of, s.readers[v.readers-1])
	}
	v.readers = s.readerSet(of)
}

// beyond says whether any of the atoms is something that not all of an audience may read:
// each of them by any of its names. An audience of nobody is one that is not known.
func (s *session) beyond(of []uint64, audience [][]uint64) bool {
	for _, atom := range of {
		v, ok := s.values[atom]
		if !ok || v.readers == 0 {
			continue
		}
		may := s.readers[v.readers-1]
		excluded := slices.ContainsFunc(audience, func(names []uint64) bool {
			return !slices.ContainsFunc(names, func(name uint64) bool { return slices.Contains(may, name) })
		})
		if excluded || len(audience) == 0 {
			return true
		}
	}
	return false
}

// audienceOf returns those to whom a call sends what it carries, by the names of each.
func audienceOf(h *atoms.Hasher, leaves []atoms.Leaf) [][]uint64 {
	var out [][]uint64
	for i := range leaves {
		if leaves[i].Audience && leaves[i].Text != "" {
			out = append(out, hash(h, nameOf(&leaves[i])))
		}
	}
	return out
}
