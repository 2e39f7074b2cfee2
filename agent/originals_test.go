// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger/originals"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// sealedFiles are a tool with a sensitive argument that asks to have it kept, and one
// that does not ask.
var sealedFiles = map[string]string{
	"protos/workshop.proto": `syntax = "proto3";
package workshop.v1;

import "buf/validate/validate.proto";
import "writ/v1/options.proto";

service Workshop {
  // Make a thing.
  rpc Make(MakeRequest) returns (MakeResponse) {
    option (writ.v1.tool) = {name: "workshop.make" risk: RISK_LOW effect: TOOL_EFFECT_WRITE originals: ORIGINALS_SEALED command: {path: "/bin/true"}};
  }
  // Send a thing away.
  rpc Send(MakeRequest) returns (MakeResponse) {
    option (writ.v1.tool) = {name: "workshop.send" risk: RISK_LOW effect: TOOL_EFFECT_WRITE};
  }
}
message MakeRequest {
  string thing = 1 [(buf.validate.field).string.max_len = 60000];
  string secret = 2 [(buf.validate.field).string.max_len = 60000, (writ.v1.field).sensitivity = SENSITIVITY_REDACT];
}
message MakeResponse {
  string thing = 1;
  string secret = 2 [(writ.v1.field).sensitivity = SENSITIVITY_REDACT];
}
`,
}

// oneKey holds one private key.
type oneKey struct{ private originals.Private }

func (k *oneKey) Private(context.Context, [32]byte) (originals.Private, error) { return k.private, nil }

// newDayKey makes the key of acme for a day, and returns it with the list of its public half.
func newDayKey(t *testing.T, day originals.Day) (*oneKey, *originals.Keys) {
	t.Helper()
	bytes, private, err := originals.Generate()
	if err != nil {
		t.Fatal(err)
	}
	public := originals.PublicKey{Tenant: "acme", Day: day, Bytes: bytes}
	keys, err := originals.ParseKeys([]byte(public.String()))
	if err != nil {
		t.Fatal(err)
	}
	return &oneKey{private: originals.Private{Tenant: "acme", Day: day, Key: private}}, keys
}

// decisions are the records of decisions, by tool.
func (w *workshop) decisions() map[string][]*writv1.Record {
	found := make(map[string][]*writv1.Record)
	bodies := w.entries()
	w.records(func(r *writv1.Record) {
		if r.GetKind() != writv1.RecordKind_RECORD_KIND_DECISION {
			return
		}
		for _, e := range bodies {
			if e.id == string(r.GetDecisionId()) && e.decision != nil {
				found[e.decision.GetTool()] = append(found[e.decision.GetTool()], r)
			}
		}
	})
	return found
}

func TestSensitiveArgumentsAreSealedWhereTheirToolAsksAndOpenNowhereElse(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	holder, keys := newDayKey(t, "2026-11-27")
	w := openWorkshop(t, workshopOptions{files: sealedFiles, clock: func() time.Time { return now }, originals: keys})
	call := func(tool, json string) *agent.Admission {
		r := request(tool, "")
		r.Arguments = tools.Arguments{JSON: []byte(json)}
		return w.agent.Admit(t.Context(), r)
	}
	call("workshop.make", `{"thing":"a","secret":"s3cret"}`)
	call("workshop.make", `{"thing":"nothing to keep"}`)
	call("workshop.send", `{"thing":"a","secret":"s3cret"}`)
	call("workshop.make", `{"thing":"large","secret":"`+strings.Repeat("s", 20_000)+`"}`)
	refused := call("workshop.make", `{"thing":"`+strings.Repeat("t", 55_000)+`","secret":"`+strings.Repeat("s", 15_000)+`"}`)
	if refused.Decision().GetReason() != writv1.Reason_REASON_LEDGER_RECORD_TOO_LARGE {
		t.Errorf("what does not fit a record with its originals: %v", refused.Decision().GetReason())
	}
	made := w.decisions()["workshop.make"]
	values, err := originals.NewOpener(holder).Open(t.Context(), made[0])
	if err != nil || len(values) != 1 || values[0].Path != "arguments.secret" || string(values[0].JSON) != `"s3cret"` {
		t.Errorf("%v, %v", values, err)
	}
	if made[1].GetSealed() != nil {
		t.Errorf("a call without sensitive arguments: %v", made[1].GetSealed())
	}
	if sealed := made[2].GetSealed(); sealed.GetGap() != writv1.OriginalsGap_ORIGINALS_GAP_TOO_LARGE || len(made[2].GetCommitments()) != 1 {
		t.Errorf("arguments that are too large: %v", sealed)
	}
	if len(made) != 4 || made[3].GetSealed() != nil || made[3].GetCommitments() != nil {
		t.Errorf("the refusal of what is too large: %v", made[3])
	}
	if send := w.decisions()["workshop.send"][0]; send.GetSealed() != nil || len(send.GetCommitments()) != 1 {
		t.Errorf("a tool that does not ask: %v", send)
	}
	now = now.AddDate(0, 0, 1)
	if late := call("workshop.make", `{"thing":"a","secret":"s3cret"}`); !late.Allowed() {
		t.Errorf("on a day without a key: %v", late.Refusal())
	}
	if sealed := w.decisions()["workshop.make"][4].GetSealed(); sealed.GetGap() != writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY || sealed.GetDay() != "2026-11-28" {
		t.Errorf("on a day without a key: %v", sealed)
	}
}

func TestAnAgentWithoutKeysSaysThatNothingIsSealed(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: sealedFiles})
	r := request("workshop.make", "")
	r.Arguments = tools.Arguments{JSON: []byte(`{"thing":"a","secret":"s3cret"}`)}
	w.allow(r)
	if sealed := w.decisions()["workshop.make"][0].GetSealed(); sealed.GetGap() != writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY {
		t.Errorf("sealed: %v", sealed)
	}
}

func TestSensitiveValuesOfResultsAreSealedInTheOutcome(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 23, 59, 0, 0, time.UTC)
	holder, keys := newDayKey(t, "2026-11-27")
	w := openWorkshop(t, workshopOptions{files: sealedFiles, clock: func() time.Time { return now }, originals: keys})
	run := func(secret string) *writv1.Record {
		t.Helper()
		r := request("workshop.make", "")
		r.Arguments = tools.Arguments{JSON: []byte(`{"thing":"a","secret":"` + secret + `"}`)}
		ad := w.allow(r)
		if err := ad.Finish(ad.Run(t.Context(), nil).Outcome()); err != nil {
			t.Fatal(err)
		}
		var last *writv1.Record
		w.records(func(r *writv1.Record) {
			if r.GetKind() == writv1.RecordKind_RECORD_KIND_OUTCOME {
				last = r
			}
		})
		return last
	}
	values, err := originals.NewOpener(holder).Open(t.Context(), run("s3cret"))
	if err != nil || len(values) != 1 || values[0].Path != "result.secret" || string(values[0].JSON) != `"s3cret"` {
		t.Errorf("%v, %v", values, err)
	}
	if sealed := run(strings.Repeat("s", 20_000)).GetSealed(); sealed.GetGap() != writv1.OriginalsGap_ORIGINALS_GAP_TOO_LARGE {
		t.Errorf("a result that is too large: %v", sealed)
	}
	now = now.Add(time.Minute)
	if sealed := run("s3cret").GetSealed(); sealed.GetGap() != writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY || sealed.GetDay() != "2026-11-28" {
		t.Errorf("on a day without a key: %v", sealed)
	}
}
