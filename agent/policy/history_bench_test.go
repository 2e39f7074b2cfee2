// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/sessions"
)

// customer is the session of a bank's customer.
type customer struct {
	machine *sessions.Machine
	id      sessions.ID
	who     *writv1.Principal
	hasher  *atoms.Hasher
	bundle  *policy.Bundle
	now     time.Time
}

func newCustomer(b testing.TB) *customer {
	b.Helper()
	bundle, err := bundles.LoadDir(b.Context(), "../../testdata/eval/banking", bundles.Options{})
	if err != nil {
		b.Fatal(err)
	}
	c := &customer{
		machine: sessions.New(), id: sessions.ID{15: 1}, bundle: bundle, hasher: atoms.NewHasher([32]byte{}),
		who: &writv1.Principal{User: "ann", Tenant: "acme", Roles: []string{"customer"}}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	c.machine.Begin(&writv1.SessionRecord{
		Session: c.id[:], Event: writv1.SessionEvent_SESSION_EVENT_BEGIN, Principal: c.who, Time: timestamppb.New(c.now),
		ExpireTime: timestamppb.New(c.now.Add(time.Hour)), TokenDigest: c.id[:],
	})
	c.hears(sessions.User, writv1.Trust_TRUST_TRUSTED, "Send 2000 cents to GB29NWBK60161331926819 for lunch.")
	return c
}

func (c *customer) hears(source string, trust writv1.Trust, text string) {
	said := func(atom uint64) (bool, bool) { return c.machine.Said(c.id, atom) }
	c.machine.Observe(sessions.Observation(c.hasher, sessions.Observed{
		Session: c.id, Source: source, Time: c.now, Text: text, Selected: true,
		Worth: func(string) sessions.Worth { return sessions.Worth{Trust: trust} },
	}, said))
}

// pays gives the session a history of calls, a quarter of them payments, and of what
// came back.
func (c *customer) pays(count int) {
	for i := range count {
		tool := "bank.send_money"
		if i%4 > 0 {
			tool = "bank.list_transactions"
		}
		d := sessions.Decided{
			Session: c.id, Owner: sessions.OwnerOf(c.who), Time: c.now, Tool: tool,
			Effect: writv1.ToolEffect_TOOL_EFFECT_READ, Verdict: writv1.Verdict_VERDICT_ALLOW,
			Kept: []*writv1.KeptField{
				{Path: "args.iban", Value: fmt.Sprintf(`"DE%020d"`, i)}, {Path: "args.amount_cents", Value: "4500"},
			},
		}
		binary.BigEndian.PutUint64(d.Decision[:], uint64(i+1))
		c.machine.Decided(d)
		c.hears("tool:bank.list_transactions", writv1.Trust_TRUST_UNTRUSTED, fmt.Sprintf("payment %d to DE%020d over 4500 cents on 2026-01-%02d", i, i, i%28+1))
	}
}

// decide reads the facts of a payment and decides on it.
func (c *customer) decide() *policy.Result {
	call := bundles.CallOf(c.who, &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "bank.send_money", Args: &writv1.Json{
		Text: []byte(`{"iban":"GB29NWBK60161331926819","amount_cents":2000,"subject":"lunch"}`),
	}}})
	needs := c.bundle.Read(call)
	return policy.Decide(c.bundle, call, &writv1.Facts{
		Time:    timestamppb.New(c.now),
		Session: c.machine.Summary(c.id, sessions.OwnerOf(c.who), c.now, needs.Tools),
		Values:  c.machine.Values(c.id, sessions.Ask(c.hasher, needs.Leaves, needs.Sink)),
	})
}

// BenchmarkDecideHistory measures a decision with its facts in a session without
// history, and in one of 200 calls: at most twice as much (docs/provenance.md).
func BenchmarkDecideHistory(b *testing.B) {
	for _, calls := range []int{0, 200} {
		c := newCustomer(b)
		c.pays(calls)
		if got := c.decide().Decision; got.GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
			b.Fatal(got)
		}
		b.Run(fmt.Sprintf("calls=%d", calls), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.decide()
			}
		})
	}
}

// BenchmarkSessionMemory measures what a session of so many calls holds.
func BenchmarkSessionMemory(b *testing.B) {
	const count = 64
	for _, calls := range []int{0, 20, 200, 5000} {
		b.Run(fmt.Sprintf("calls=%d", calls), func(b *testing.B) {
			for b.Loop() {
				kept := make([]*sessions.Machine, count)
				before := heap()
				for i := range kept {
					c := newCustomer(b)
					c.pays(calls)
					kept[i] = c.machine
				}
				b.ReportMetric(float64(heap()-before)/count, "B/session")
				runtime.KeepAlive(kept)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
