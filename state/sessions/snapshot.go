// SPDX-License-Identifier: Apache-2.0

package sessions

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// heldValues is how many values stand in one part of a snapshot.
const heldValues = 1024

// Held returns what is kept, for a snapshot: owners, then sessions in the order of
// their ids, each with its values after it.
func (m *Machine) Held() []*writv1.HeldSession {
	var out []*writv1.HeldSession
	for owner, of := range m.owners {
		out = append(out, &writv1.HeldSession{
			Owner: owner.message(), ExpireTime: timestamppb.New(of.expire), Counts: of.counts.message(),
		})
	}
	slices.SortFunc(out, func(a, b *writv1.HeldSession) int { return cmp.Compare(a.GetOwner().String(), b.GetOwner().String()) })
	for _, id := range m.ids() {
		out = append(out, m.sessions[id].held()...)
	}
	return out
}

func (m *Machine) ids() []ID {
	ids := make([]ID, 0, len(m.sessions))
	for id := range m.sessions {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ID) int { return cmp.Compare(a.String(), b.String()) })
	return ids
}

func (o Owner) message() *writv1.Principal {
	return &writv1.Principal{Workload: o.Workload, User: o.User, Tenant: o.Tenant}
}

func (s *session) held() []*writv1.HeldSession {
	head := &writv1.HeldSession{
		Session: s.id[:], Owner: s.owner.message(), Ambient: s.ambient, BeginTime: timestamppb.New(s.begin), ExpireTime: timestamppb.New(s.expire),
		Attested: s.attested, ReadUntrusted: s.untrusted, Classification: s.class, Full: s.full, Counts: s.counts.message(),
		Sources: s.sources, Objects: s.objects,
	}
	for _, set := range s.readers {
		head.Readers = append(head.Readers, packed(set))
	}
	if !s.ambient {
		head.TokenDigest = s.token[:]
	}
	tools := make([]string, 0, len(s.steps))
	for tool := range s.steps {
		tools = append(tools, tool)
	}
	slices.Sort(tools)
	parts := []*writv1.HeldSession{head}
	for _, tool := range tools {
		of := s.steps[tool]
		parts = append(parts, s.heldSteps(tool, of)...)
	}
	atoms := make([]uint64, 0, len(s.values))
	for atom := range s.values {
		atoms = append(atoms, atom)
	}
	slices.Sort(atoms)
	for batch := range slices.Chunk(atoms, heldValues) {
		part := &writv1.HeldSession{Session: s.id[:]}
		for _, atom := range batch {
			part.Values = append(part.Values, s.values[atom].held(atom))
		}
		parts = append(parts, part)
	}
	return parts
}

// heldSteps returns the steps of one tool, a few a part, so that none is too large.
func (s *session) heldSteps(tool string, of *steps) []*writv1.HeldSession {
	const batch = 16
	parts := []*writv1.HeldSession{{Session: s.id[:], Steps: &writv1.HeldSteps{Tool: tool, Count: of.count}}}
	for kept := range slices.Chunk(of.kept, batch) {
		part := &writv1.HeldSession{Session: s.id[:], Steps: &writv1.HeldSteps{Tool: tool, Count: of.count}}
		for _, made := range kept {
			part.Steps.Kept = append(part.Steps.Kept, &writv1.HeldStep{DecisionId: made.decision[:], Step: made.message(), Open: !made.ended})
		}
		parts = append(parts, part)
	}
	return parts
}

func (v *value) held(atom uint64) *writv1.HeldValue {
	out := &writv1.HeldValue{
		Atom: atom, Sources: v.sources, Trusted: v.trusted, Carried: v.carried, OfRequest: v.request,
		ForeignTenant: v.foreign, Named: v.named, Classification: v.class, Objects: v.objects,
		Readers: v.readers,
	}
	if !v.at.IsZero() {
		out.TrustedTime = timestamppb.New(v.at)
	}
	return out
}

// Restore takes one part of what [Machine.Held] returned.
func (m *Machine) Restore(part *writv1.HeldSession) error {
	switch {
	case len(part.GetSession()) == 0:
		of := &owned{expire: part.GetExpireTime().AsTime(), counts: countsOf(part.GetCounts())}
		m.owners[OwnerOf(part.GetOwner())] = of
		return nil
	case part.GetOwner() != nil:
		m.restoreHead(part)
		return nil
	}
	s, ok := m.sessions[ID(part.GetSession())]
	if !ok {
		return fmt.Errorf("%w: a part of it comes before it", ErrUnknown)
	}
	m.restoreSteps(s, part.GetSteps())
	for _, held := range part.GetValues() {
		v := &value{
			sources: held.GetSources(), trusted: held.GetTrusted(), carried: held.GetCarried(), request: held.GetOfRequest(),
			foreign: held.GetForeignTenant(), named: held.GetNamed(), class: held.GetClassification(), objects: held.GetObjects(),
			readers: held.GetReaders(),
		}
		if held.GetTrustedTime() != nil {
			v.at = held.GetTrustedTime().AsTime()
		}
		if int(v.readers) > len(s.readers) {
			return fmt.Errorf("%w: a value names readers that the session has not", ErrUnknown)
		}
		m.keep(s, held.GetAtom(), v)
	}
	return nil
}

func (m *Machine) restoreHead(part *writv1.HeldSession) {
	s := m.add(ID(part.GetSession()), OwnerOf(part.GetOwner()), part.GetBeginTime().AsTime())
	s.expire, s.ambient = part.GetExpireTime().AsTime(), part.GetAmbient()
	s.attested, s.untrusted = part.GetAttested(), part.GetReadUntrusted()
	s.class, s.full, s.counts = part.GetClassification(), part.GetFull(), countsOf(part.GetCounts())
	s.sources, s.objects = part.GetSources(), part.GetObjects()
	for _, set := range part.GetReaders() {
		s.readers = append(s.readers, slices.Collect(unpack(set)))
	}
	if !s.ambient {
		copy(s.token[:], part.GetTokenDigest())
		m.tokens[s.token] = s.id
	}
}

func (m *Machine) restoreSteps(s *session, held *writv1.HeldSteps) {
	if held == nil {
		return
	}
	of, ok := s.steps[held.GetTool()]
	if !ok {
		of = &steps{count: held.GetCount()}
		s.steps[held.GetTool()] = of
	}
	for _, h := range held.GetKept() {
		made := &step{
			of:       s,
			decision: [16]byte(h.GetDecisionId()), tool: held.GetTool(), time: h.GetStep().GetTime().AsTime(),
			succeeded: h.GetStep().GetSucceeded(), fields: h.GetStep().GetFields(), ended: !h.GetOpen(),
		}
		of.kept = append(of.kept, made)
		if !made.ended {
			m.open[made.decision] = made
		}
	}
}

func countsOf(c *writv1.SessionCounts) counts {
	return counts{calls: c.GetCalls(), writes: c.GetWrites(), denials: c.GetDenials()}
}

// Dump returns all that is kept as text, in one order: equal for equal states.
func (m *Machine) Dump() string {
	var out strings.Builder
	for _, part := range m.Held() {
		// The text form is not stable between programs; the binary one, without maps, is.
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(part)
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&out, "session %x\n", text)
	}
	return out.String()
}
