// SPDX-License-Identifier: Apache-2.0

package workflows

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Held returns what is kept, for a snapshot: the totals, then the runs in the order of
// their sessions.
func (m *Machine) Held() []*writv1.HeldRun {
	var out []*writv1.HeldRun
	workflows := slices.SortedFunc(maps.Keys(m.totals), func(a, b Workflow) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Contract, b.Contract))
	})
	for _, workflow := range workflows {
		out = append(out, &writv1.HeldRun{Totals: m.totals[workflow].message(workflow)})
	}
	sessions := slices.SortedFunc(maps.Keys(m.runs), func(a, b Session) int { return bytes.Compare(a[:], b[:]) })
	for _, session := range sessions {
		out = append(out, m.held(m.runs[session])...)
	}
	return out
}

// held returns a run, and after it the calls of it that are open besides those of its
// path, a few a part, so that none is too large.
func (m *Machine) held(r *run) []*writv1.HeldRun {
	const batch = 1024
	head := &writv1.HeldRun{
		Session: r.session[:], Tenant: r.workflow.Tenant, ExpireTime: timestamppb.New(r.expire), Run: r.summary(), Cost: r.cost.message(),
	}
	for _, made := range r.path {
		_, open := m.open[made.decision]
		head.Path = append(head.Path, made.held(open))
	}
	var open []*writv1.HeldCall
	for _, made := range m.open {
		if made.session == r.session && !made.ordered {
			open = append(open, made.held(true))
		}
	}
	slices.SortFunc(open, func(a, b *writv1.HeldCall) int { return bytes.Compare(a.GetDecisionId(), b.GetDecisionId()) })
	parts := []*writv1.HeldRun{head}
	for some := range slices.Chunk(open, batch) {
		parts = append(parts, &writv1.HeldRun{Session: r.session[:], Open: some})
	}
	return parts
}

func (c *call) held(open bool) *writv1.HeldCall {
	return &writv1.HeldCall{DecisionId: c.decision[:], Tool: c.tool, Effect: c.effect, Open: open}
}

// Restore takes one part of what [Machine.Held] returned.
func (m *Machine) Restore(part *writv1.HeldRun) {
	if t := part.GetTotals(); t != nil {
		m.totals[Workflow{Tenant: t.GetTenant(), Contract: t.GetContract()}] = &totals{
			begun: t.GetBegun(), succeeded: t.GetSucceeded(), failed: t.GetFailed(), unacceptable: t.GetUnacceptable(), cost: costOf(t.GetCost()),
		}
		return
	}
	if part.GetRun() == nil {
		if r, ok := m.runs[Session(part.GetSession())]; ok {
			for _, held := range part.GetOpen() {
				m.restore(r, held)
			}
		}
		return
	}
	summary := part.GetRun()
	r := &run{
		id: ID(summary.GetId()), session: Session(part.GetSession()), workflow: Workflow{Tenant: part.GetTenant(), Contract: summary.GetContract()},
		feature: summary.GetFeature(), intent: summary.GetIntent(), begin: summary.GetBeginTime().AsTime(), expire: part.GetExpireTime().AsTime(),
		inputs: summary.GetInputs(), counts: make(map[string]uint64), cost: costOf(part.GetCost()),
	}
	for _, count := range summary.GetCounts() {
		r.counts[count.GetTool()] = count.GetCount()
	}
	for _, held := range part.GetPath() {
		made := m.restore(r, held)
		made.ordered = true
		r.path = append(r.path, made)
	}
	m.runs[r.session] = r
	m.changed(r)
}

func (m *Machine) restore(r *run, held *writv1.HeldCall) *call {
	made := &call{decision: [16]byte(held.GetDecisionId()), session: r.session, run: r.id, tool: held.GetTool(), effect: held.GetEffect()}
	if held.GetOpen() {
		m.open[made.decision] = made
	}
	return made
}

// Dump returns all that is kept as text, in one order: equal for equal states.
func (m *Machine) Dump() string {
	var out strings.Builder
	for _, part := range m.Held() {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(part)
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&out, "run %x\n", text)
	}
	return out.String()
}
