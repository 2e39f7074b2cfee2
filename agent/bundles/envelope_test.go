// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const whole = `{
  "request_id": "req-7812", "session": "s", "workflow": "w", "intent": "i", "user_role": "r",
  "model_route": "m", "model_pin": "p", "prompt_version": "v",
  "retrieval": {
    "kb_doc_ids": ["a", "b"], "tenant": "acme", "top_k": 4,
    "documents": [{"id": "a", "retrieve_time": "2026-01-01T00:00:00Z", "snippet_sha256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]
  },
  "tool_call": {
    "name": "shop.order", "args": {"count": 12345678901234567890, "deep": [1.50, null, {"x": "\u00e9"}]},
    "policy_checks": ["few"], "approved": true
  }
}`

func TestAnEnvelopeIsReadWhole(t *testing.T) {
	t.Parallel()
	want := &writv1.Envelope{
		RequestId: "req-7812", Session: "s", Workflow: "w", Intent: "i", UserRole: "r",
		ModelRoute: "m", ModelPin: "p", PromptVersion: "v",
		Retrieval: &writv1.Retrieval{
			KbDocIds: []string{"a", "b"}, Tenant: "acme", TopK: 4,
			Documents: []*writv1.RetrievedDocument{{
				Id: "a", RetrieveTime: &timestamppb.Timestamp{Seconds: 1767225600}, SnippetSha256: make([]byte, 32),
			}},
		},
		ToolCall: &writv1.ToolCall{
			Name:         "shop.order",
			Args:         &writv1.Json{Text: []byte(`{"count": 12345678901234567890, "deep": [1.50, null, {"x": "\u00e9"}]}`)},
			PolicyChecks: []string{"few"},
			Approved:     true,
		},
	}
	got, err := bundles.ReadEnvelope([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("envelope (-want +got):\n%s", diff)
	}
}

func TestAnEnvelopeIsReadStrictly(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":                        ``,
		"no object":                      `[]`,
		"null":                           `null`,
		"truncated":                      `{"intent": "x"`,
		"something after it":             `{} {}`,
		"an unknown key":                 `{"role": "x"}`,
		"a key in another spelling":      `{"userRole": "x"}`,
		"a key twice":                    `{"intent": "x", "intent": "y"}`,
		"a key twice in the arguments":   `{"tool_call": {"args": {"a": 1, "a": 2}}}`,
		"null for absent":                `{"intent": null}`,
		"a number for a string":          `{"intent": 1}`,
		"a string for a number":          `{"retrieval": {"top_k": "4"}}`,
		"a fraction":                     `{"retrieval": {"top_k": 4.5}}`,
		"a number over its rule":         `{"retrieval": {"top_k": 10001}}`,
		"a number over its type":         `{"retrieval": {"top_k": 4294967300}}`,
		"a string for a bool":            `{"tool_call": {"approved": "true"}}`,
		"a string for a list":            `{"tool_call": {"policy_checks": "x"}}`,
		"an object for a list":           `{"retrieval": {"documents": {}}}`,
		"a list for an object":           `{"retrieval": []}`,
		"a time that is none":            `{"retrieval": {"documents": [{"id": "a", "retrieve_time": "now"}]}}`,
		"base64 that is none":            `{"retrieval": {"documents": [{"id": "a", "snippet_sha256": "?"}]}}`,
		"a digest that is too short":     `{"retrieval": {"documents": [{"id": "a", "snippet_sha256": "AAAA"}]}}`,
		"bytes that are not UTF-8":       "{\"intent\": \"\xff\"}",
		"half of a surrogate pair":       `{"intent": "\ud800"}`,
		"a comment":                      `{/* x */}`,
		"a string longer than its limit": `{"user_role": "` + string(make([]byte, 129)) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := bundles.ReadEnvelope([]byte(text)); err == nil {
				t.Errorf("ReadEnvelope(%q) = %v, want an error", text, got)
			}
		})
	}
}

func FuzzReadEnvelope(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"tool_call": {"args": {"a": 1, "a": 2}}}`))
	f.Add([]byte(`{"retrieval": {"documents": [{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		envelope, err := bundles.ReadEnvelope(data)
		if err != nil {
			return
		}
		again, err := bundles.ReadEnvelope(data)
		if err != nil || !proto.Equal(envelope, again) {
			t.Errorf("two readings of %q differ", data)
		}
	})
}

func TestReadEnvelopeTakesWhatARecordHolds(t *testing.T) {
	t.Parallel()
	base := `"retrieval":{"kb_doc_ids":["` + strings.Repeat(strings.Repeat("k", 201)+`","`, 80) + `k"]},"tool_call":{"args":"` + strings.Repeat("a", 100_000) + `"}`
	size := func(text string) int {
		envelope, err := bundles.ReadEnvelope([]byte(text))
		if err != nil {
			return -1
		}
		return proto.Size(envelope) - proto.Size(envelope.GetToolCall().GetArgs())
	}
	with := func(session int) string { return `{"session":"` + strings.Repeat("s", session) + `",` + base + `}` }
	room := policy.MaxEnvelopeBytes - size(with(1)) + 1
	if room < 1 || room > 100 {
		t.Fatalf("a session of %d bytes would fill the envelope", room)
	}
	for _, session := range []int{room - 1, room} {
		if got := size(with(session)); got != policy.MaxEnvelopeBytes-room+session {
			t.Errorf("an envelope of %d bytes is read as one of %d", policy.MaxEnvelopeBytes-room+session, got)
		}
	}
	if got := size(with(room + 1)); got != -1 {
		t.Errorf("an envelope of %d bytes is taken", got)
	}
}
