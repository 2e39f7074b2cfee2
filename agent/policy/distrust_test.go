// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// calls of the proof corpus, with the paths of what decides what they do.
var weighed = []struct {
	suite, role, tool, args string
	paths                   []string
}{
	{"banking", "customer", "bank.send_money", `{"iban":"GB29NWBK60161331926819","amount_cents":2000,"subject":"lunch"}`, []string{"iban", "amount_cents", "subject"}},
	{"banking", "customer", "bank.pay_bill", `{"bill_id":"B-77","amount_cents":8431}`, []string{"bill_id", "amount_cents"}},
	{"office", "employee", "mail.send", `{"to":["jane@example.com","raj@example.com"],"subject":"Lunch","body":"At one."}`, []string{"to[0]", "to[1]", "subject", "body"}},
	{"office", "employee", "files.share", `{"file_id":"f-5","with":"jane@example.com"}`, []string{"file_id", "with"}},
	{"code", "developer", "web.fetch", `{"url":"https://pkg.go.dev/errors"}`, []string{"url"}},
	{"travel", "traveller", "hotels.book", `{"hotel_id":"H1","price_cents":12000,"nights":2}`, []string{"hotel_id", "price_cents"}},
}

// leave is how much a verdict leaves.
func leave(d *writv1.Decision) int {
	switch d.GetVerdict() {
	case writv1.Verdict_VERDICT_ALLOW:
		return 2
	case writv1.Verdict_VERDICT_NEEDS_APPROVAL:
		return 1
	default:
		return 0
	}
}

func labelDrawn(t *rapid.T, path string, now time.Time) *writv1.ValueProvenance {
	if rapid.IntRange(0, 4).Draw(t, "unknown") == 0 {
		// What a value carries is known though nobody said it.
		return &writv1.ValueProvenance{Path: path}
	}
	label := &writv1.ValueProvenance{
		Path: path, Trust: rapid.SampledFrom([]writv1.Trust{writv1.Trust_TRUST_TRUSTED, writv1.Trust_TRUST_UNTRUSTED}).Draw(t, "trust"),
		Sources:   rapid.SampledFrom([][]string{{"user"}, {"tool:a"}, {"tool:a", "user"}}).Draw(t, "sources"),
		OfRequest: rapid.Bool().Draw(t, "of the request"), Objects: rapid.SampledFrom([][]uint32{nil, {1}, {1, 2}}).Draw(t, "objects"),
	}
	if label.GetTrust() == writv1.Trust_TRUST_TRUSTED {
		label.TrustedTime = timestamppb.New(now.Add(-time.Duration(rapid.IntRange(0, 7200).Draw(t, "seconds ago")) * time.Second))
	}
	return label
}

// TestMoreDistrustNeverAllowsMore takes trust away from a value, or adds something
// untrusted to the session, and holds the verdict against the one before.
func TestMoreDistrustNeverAllowsMore(t *testing.T) {
	t.Parallel()
	loaded := make(map[string]*policy.Bundle)
	for _, w := range weighed {
		bundle, err := bundles.LoadDir(t.Context(), "../../testdata/eval/"+w.suite, bundles.Options{})
		if err != nil {
			t.Fatal(err)
		}
		loaded[w.suite] = bundle
	}
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom(weighed).Draw(t, "call")
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		facts := &writv1.Facts{Time: timestamppb.New(now), Session: &writv1.SessionSummary{
			Id: make([]byte, 16), Attested: rapid.Bool().Draw(t, "attested"), ReadUntrusted: rapid.Bool().Draw(t, "read untrusted"),
			Counts: &writv1.SessionCounts{}, PrincipalCounts: &writv1.SessionCounts{},
		}}
		for _, path := range w.paths {
			facts.Values = append(facts.Values, labelDrawn(t, path, now))
		}
		decide := func(facts *writv1.Facts) *writv1.Decision {
			call := bundles.CallOf(&writv1.Principal{User: "ann", Tenant: "acme", Roles: []string{w.role}},
				&writv1.Envelope{ToolCall: &writv1.ToolCall{Name: w.tool, Args: &writv1.Json{Text: []byte(w.args)}}})
			return policy.Decide(loaded[w.suite], call, facts).Decision
		}
		before := decide(facts)
		less := proto.CloneOf(facts)
		less.Session.ReadUntrusted = true
		path := rapid.SampledFrom(w.paths).Draw(t, "distrusted")
		for _, label := range less.GetValues() {
			if label.GetPath() == path {
				label.Trust, label.OfRequest, label.TrustedTime, label.Objects = writv1.Trust_TRUST_UNTRUSTED, false, nil, nil
				label.Sources = []string{"tool:stranger"}
			}
		}
		if after := decide(less); leave(after) > leave(before) {
			t.Fatalf("%s is %v, and with less trust in %s %v", w.tool, before, path, after)
		}
	})
}
