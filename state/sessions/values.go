// SPDX-License-Identifier: Apache-2.0

package sessions

import (
	"encoding/binary"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// atomBytes is the length of an atom in a record.
const atomBytes = 8

const (
	// User is the source of what the user said through an attested channel.
	User = "user"
	// Reported is the source of what a planner says that somebody said.
	Reported = "reported"
)

// ToolSource returns the source of what a tool returned.
func ToolSource(tool string) string { return "tool:" + tool }

// value is what is known of where an atom came from.
type value struct {
	// sources has a bit for each of the session's sources.
	sources uint64
	trusted bool
	// carried is set once a call that writes carried it while it was not trusted:
	// what comes back of it later is no more trusted than it was.
	carried bool
	request bool
	// named is set while only untrusted sources say it: one is what the request named.
	named   bool
	foreign bool
	class   writv1.Classification
	// readers is the set of those who may read it, by its place among the session's
	// from 1; 0 where nothing says.
	readers uint32
	// objects are the objects of trusted lookups that hold it, the newest.
	objects []uint32
	// at is when a trusted source last said it.
	at time.Time
}

// Observe takes what a session came to know. A session that is not there is not
// made by it.
func (m *Machine) Observe(r *writv1.ObservationRecord) {
	s, ok := m.sessions[ID(r.GetSession())]
	if !ok {
		return
	}
	m.changed(s)
	s.untrusted = s.untrusted || r.GetUntrusted()
	s.attested = s.attested || r.GetAttestedRequest()
	s.class = max(s.class, r.GetClassification())
	s.full = s.full || r.GetTruncated()
	source := s.source(r.GetSource())
	now := r.GetTime().AsTime()
	for atom := range unpack(r.GetCarried()) {
		if v := m.value(s, atom); v != nil && !v.trusted {
			v.carried = true
		}
	}
	for _, group := range r.GetGroups() {
		for atom := range unpack(group.GetAtoms()) {
			if v := m.value(s, atom); v != nil {
				s.restrict(v, group)
				v.observe(group, source, s.objects+group.GetObject(), now)
			}
		}
	}
	s.objects += r.GetObjects()
}

// unpack yields the atoms that stand one after the other.
func unpack(packed []byte) func(func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for len(packed) >= atomBytes {
			if !yield(binary.BigEndian.Uint64(packed)) {
				return
			}
			packed = packed[atomBytes:]
		}
	}
}

// source returns the place of a source among the session's. The last place stands
// for all that have none of their own.
func (s *session) source(name string) int {
	if i := slices.Index(s.sources, name); i >= 0 {
		return i
	}
	if len(s.sources) < mostSources-1 {
		s.sources = append(s.sources, name)
		return len(s.sources) - 1
	}
	if len(s.sources) < mostSources {
		s.sources = append(s.sources, "others")
	}
	return mostSources - 1
}

// value returns what is known of an atom, from now on something; nil when the
// session is full.
func (m *Machine) value(s *session, atom uint64) *value {
	v, ok := s.values[atom]
	if ok {
		return v
	}
	if len(s.values) >= MostValues || m.values >= MostValuesInAll || m.ofTenant[s.owner.Tenant] >= m.mostOfTenant {
		s.full = true
		return nil
	}
	v = &value{}
	m.keep(s, atom, v)
	return v
}

// keep has a session know an atom that it did not.
func (m *Machine) keep(s *session, atom uint64, v *value) {
	s.values[atom] = v
	m.values++
	m.ofTenant[s.owner.Tenant]++
}

func (v *value) observe(group *writv1.ObservedGroup, source int, object uint32, now time.Time) {
	v.sources |= 1 << source
	v.foreign = v.foreign || group.GetForeignTenant()
	v.class = max(v.class, group.GetClassification())
	if group.GetTrust() != writv1.Trust_TRUST_TRUSTED || v.carried {
		v.named = v.named || group.GetOfRequest() && group.GetTrust() != writv1.Trust_TRUST_TRUSTED
		return
	}
	v.trusted = true
	v.request = v.request || group.GetOfRequest()
	v.at = now
	if len(v.objects) == 0 || v.objects[len(v.objects)-1] != object {
		v.objects = append(v.objects, object)
		v.objects = v.objects[max(0, len(v.objects)-mostObjects):]
	}
}

// Label returns what a session knows of a value, by its alternatives: lists of
// atoms, all of which must be known. The best known one counts; nil is unknown.
func (m *Machine) Label(id ID, alternatives [][]uint64) *writv1.ValueProvenance {
	s, ok := m.sessions[id]
	if !ok {
		return nil
	}
	var best *writv1.ValueProvenance
	for _, alternative := range alternatives {
		if label := s.label(alternative); label != nil && (best == nil || better(label, best)) {
			best = label
		}
	}
	return best
}

// better orders labels: the user's word first, then of this request, then trusted.
func better(a, b *writv1.ValueProvenance) bool {
	rank := func(l *writv1.ValueProvenance) int {
		switch {
		case l.GetTrust() != writv1.Trust_TRUST_TRUSTED:
			return 0
		case slices.Contains(l.GetSources(), User):
			return 3
		case l.GetOfRequest():
			return 2
		default:
			return 1
		}
	}
	return rank(a) > rank(b)
}

// label joins the labels of atoms: it is worth no more than the least of them.
func (s *session) label(alternative []uint64) *writv1.ValueProvenance {
	if len(alternative) == 0 {
		return nil
	}
	joined := value{sources: 0, trusted: true, request: true, named: true}
	all := ^uint64(0)
	for i, atom := range alternative {
		v, ok := s.values[atom]
		if !ok || v.sources == 0 {
			return nil
		}
		joined.sources |= v.sources
		all &= v.sources
		joined.trusted = joined.trusted && v.trusted
		joined.request = joined.request && v.request
		joined.named = joined.named && (v.named || v.trusted && v.request)
		joined.foreign = joined.foreign || v.foreign
		joined.class = max(joined.class, v.class)
		if i == 0 {
			joined.objects, joined.at = slices.Clone(v.objects), v.at
			continue
		}
		joined.objects = slices.DeleteFunc(joined.objects, func(o uint32) bool { return !slices.Contains(v.objects, o) })
		if v.at.Before(joined.at) {
			joined.at = v.at
		}
	}
	return s.message(&joined, all)
}

// message returns a label. The user said a value only if the user said all of it.
func (s *session) message(v *value, all uint64) *writv1.ValueProvenance {
	out := &writv1.ValueProvenance{
		Trust: writv1.Trust_TRUST_UNTRUSTED, OfRequest: v.named, Classification: v.class, ForeignTenant: v.foreign,
	}
	for i, source := range s.sources {
		if v.sources&(1<<i) != 0 && (source != User || all&(1<<i) != 0) {
			out.Sources = append(out.Sources, source)
		}
	}
	slices.Sort(out.Sources)
	if v.trusted {
		out.Trust, out.OfRequest, out.Objects = writv1.Trust_TRUST_TRUSTED, v.request, v.objects
		out.TrustedTime = timestamppb.New(v.at)
	}
	return out
}

// Carries returns the highest classification among the atoms that the session
// knows, and whether any of them is another tenant's.
func (m *Machine) Carries(id ID, of []uint64) (writv1.Classification, bool) {
	class, foreign := writv1.Classification_CLASSIFICATION_UNSPECIFIED, false
	s, ok := m.sessions[id]
	if !ok {
		return class, foreign
	}
	for _, atom := range of {
		if v, ok := s.values[atom]; ok {
			class, foreign = max(class, v.class), foreign || v.foreign
		}
	}
	return class, foreign
}

// Said says whether the user said the atom, or it is of the request otherwise.
func (m *Machine) Said(id ID, atom uint64) (user, request bool) {
	s, ok := m.sessions[id]
	if !ok {
		return false, false
	}
	v, ok := s.values[atom]
	if !ok {
		return false, false
	}
	place := slices.Index(s.sources, User)
	return v.trusted && place >= 0 && v.sources&(1<<place) != 0, v.trusted && v.request
}
