// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// sized returns an envelope that has so many bytes in its binary form.
func sized(t testing.TB, tool string, size int) *writv1.Envelope {
	t.Helper()
	envelope := &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: tool}, Retrieval: &writv1.Retrieval{}}
	for size-proto.Size(envelope) > 240 {
		envelope.Retrieval.KbDocIds = append(envelope.Retrieval.KbDocIds, strings.Repeat("k", 200))
	}
	envelope.Session = strings.Repeat("s", max(0, size-proto.Size(envelope)-3))
	for proto.Size(envelope) < size {
		envelope.Session += "s"
	}
	if got := proto.Size(envelope); got != size {
		t.Fatalf("the envelope has %d bytes, not %d", got, size)
	}
	return envelope
}

// largest is the most that a principal may be, as the faces bound it.
func largest() *writv1.Principal {
	principal := &writv1.Principal{
		Workload: "spiffe://" + strings.Repeat("w", 2039), User: strings.Repeat("u", 256),
		Tenant: strings.Repeat("t", 128), Roles: []string{"maker"},
	}
	for i := range 63 {
		principal.Roles = append(principal.Roles, strings.Repeat("r", 126)+string(rune('A'+i/26))+string(rune('A'+i%26)))
	}
	return principal
}

func TestAnEnvelopeIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		size   int
		reason writv1.Reason
	}{
		{"one byte under the limit", policy.MaxEnvelopeBytes - 1, writv1.Reason_REASON_GRANTED},
		{"at the limit", policy.MaxEnvelopeBytes, writv1.Reason_REASON_GRANTED},
		{"one byte over the limit", policy.MaxEnvelopeBytes + 1, writv1.Reason_REASON_DECODE_TOO_LARGE},
		{"far over what a record holds", 200_000, writv1.Reason_REASON_DECODE_TOO_LARGE},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := openWorkshop(t, workshopOptions{})
			r := request("workshop.make", "spoon")
			r.Principal, r.Envelope = largest(), sized(t, "workshop.make", c.size)
			want := proto.CloneOf(r.Envelope)
			if c.reason != writv1.Reason_REASON_GRANTED {
				want = &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "workshop.make"}}
			}
			r.Envelope.ToolCall.Args = &writv1.Json{Text: make([]byte, 100_000)} // stand apart
			w.agent.Admit(t.Context(), r)
			got := w.entries()[0].decision
			if got.GetDecision().GetReason() != c.reason {
				t.Errorf("recorded %v, want %v", got.GetDecision().GetReason(), c.reason)
			}
			if diff := cmp.Diff(r.Principal, got.GetPrincipal(), protocmp.Transform()); diff != "" {
				t.Errorf("another principal is recorded (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want, got.GetEnvelope(), protocmp.Transform()); diff != "" {
				t.Errorf("another envelope is recorded (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARecordThatWouldBeTooLargeKeepsWhoAskedForWhat(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{})
	envelope := sized(t, "workshop.make", policy.MaxEnvelopeBytes)
	tooLarge := func(size int) bool {
		r := request("workshop.make", strings.Repeat("x", size))
		r.Principal, r.Envelope = largest(), envelope
		return w.agent.Admit(t.Context(), r).Decision().GetReason() == writv1.Reason_REASON_LEDGER_RECORD_TOO_LARGE
	}
	admit := func(size int) *writv1.DecisionRecord {
		tooLarge(size)
		found := w.entries()
		return found[len(found)-1].decision
	}
	const most = 65_535 // of a record
	first := sort.Search(most, tooLarge)
	if first < most/3 || first == most {
		t.Fatalf("arguments of %d bytes are the first that do not fit", first)
	}
	// The time in a record takes up to four bytes more or less.
	const slack = 4
	if got := admit(first - 1 - slack); got.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW || len(got.GetArguments()) < first-1-slack {
		t.Errorf("a little less: %v with %d bytes", got.GetDecision(), len(got.GetArguments()))
	}
	got := admit(first + slack)
	if len(got.GetArguments()) != 0 || len(got.GetIdentity()) != 32 || got.GetTool() != "workshop.make" || len(got.GetSchemaDigest()) != 32 {
		t.Errorf("recorded %d bytes of arguments, %d of the identity, tool %q", len(got.GetArguments()), len(got.GetIdentity()), got.GetTool())
	}
	if diff := cmp.Diff(largest(), got.GetPrincipal(), protocmp.Transform()); diff != "" {
		t.Errorf("another principal is recorded (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(envelope, got.GetEnvelope(), protocmp.Transform()); diff != "" {
		t.Errorf("another envelope is recorded (-want +got):\n%s", diff)
	}
	w.agrees()
}
