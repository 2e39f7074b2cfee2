// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

const approval = "00112233445566778899aabbccddeeff"

// asking is a stateless call of a client with capabilities, with more params.
func asking(capabilities, more string) *wire.Request {
	meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":` + capabilities + `}`
	return post(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"read_file","arguments":{}`+more+`,`+meta+`}}`, modern...)
}

func pending() *wire.Denial {
	return &wire.Denial{
		Refusal:    reasons.New(writv1.Reason_REASON_APPROVAL_REQUIRED, "", "a human must approve the call first"),
		DecisionID: strings.Repeat("1", 32), ApprovalID: approval,
	}
}

func TestAClientThatShowsFormsIsAskedForInputWhileACallWaits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		capabilities string
		want         string
	}{
		"forms by default":     {`{"elicitation":{}}`, "input_required"},
		"forms by name":        {`{"elicitation":{"form":{},"url":{}}}`, "input_required"},
		"URLs alone":           {`{"elicitation":{"url":{}}}`, "complete"},
		"nothing":              {`{}`, "complete"},
		"a capability no more": {`{"elicitation":null}`, "complete"},
		"no object":            {`[]`, "complete"},
	} {
		call := mcpRoute().Decode(asking(c.capabilities, ""))
		if call.Refusal != nil {
			t.Fatalf("%s: refused: %v", name, call.Refusal)
		}
		var answer struct {
			ID     int `json:"id"`
			Result struct {
				Type     string `json:"resultType"`
				State    string `json:"requestState"`
				IsError  bool   `json:"isError"`
				Content  []any  `json:"content"`
				Requests map[string]struct {
					Method string `json:"method"`
					Params struct {
						Mode    string `json:"mode"`
						Message string `json:"message"`
					} `json:"params"`
				} `json:"inputRequests"`
			} `json:"result"`
		}
		response := call.Deny(pending())
		if err := json.Unmarshal(response.Body, &answer); err != nil || response.Status != 200 || answer.ID != 3 || answer.Result.Type != c.want {
			t.Errorf("%s: status %d, %v: %s", name, response.Status, err, response.Body)
		}
		if c.want != "input_required" {
			if !answer.Result.IsError || len(answer.Result.Requests) > 0 {
				t.Errorf("%s: %s", name, response.Body)
			}
			continue
		}
		asked := answer.Result.Requests["dev.writ/approval"]
		if asked.Method != "elicitation/create" || asked.Params.Mode != "form" || !strings.Contains(asked.Params.Message, approval) ||
			answer.Result.State != "dev.writ/approval:"+approval || answer.Result.IsError || len(answer.Result.Content) > 0 {
			t.Errorf("%s: %s", name, response.Body)
		}
		other := pending()
		other.Refusal = reasons.New(writv1.Reason_REASON_CONDITION_CHECK_FAILED, "", "no")
		if got := string(call.Deny(other).Body); strings.Contains(got, "input_required") {
			t.Errorf("%s: another refusal: %s", name, got)
		}
	}
}

func TestTheAnswerToAPendingCallIsReadAndGoesNoFurther(t *testing.T) {
	t.Parallel()
	state := `,"requestState":"dev.writ/approval:` + approval + `"`
	for name, c := range map[string]struct {
		more string
		want writv1.Reason
	}{
		"who goes on":              {state + `,"inputResponses":{"dev.writ/approval":{"action":"accept","content":{}}}`, 0},
		"who goes on unasked":      {`,"inputResponses":{"dev.writ/approval":{"action":"accept"}}`, 0},
		"who declines":             {state + `,"inputResponses":{"dev.writ/approval":{"action":"decline"}}`, writv1.Reason_REASON_APPROVAL_DENIED},
		"who cancels":              {state + `,"inputResponses":{"dev.writ/approval":{"action":"cancel"}}`, writv1.Reason_REASON_APPROVAL_DENIED},
		"an answer of no kind":     {state + `,"inputResponses":{"dev.writ/approval":{}}`, writv1.Reason_REASON_APPROVAL_DENIED},
		"an answer to the server":  {`,"inputResponses":{"dev.writ/approval":{"action":"accept"},"github":{"action":"accept"}}`, writv1.Reason_REASON_DECODE_PROTOCOL},
		"an answer before ours":    {`,"inputResponses":{"github":{"action":"accept"},"dev.writ/approval":{"action":"accept"}}`, writv1.Reason_REASON_DECODE_PROTOCOL},
		"an answer that is a list": {`,"inputResponses":{"dev.writ/approval":[]}`, writv1.Reason_REASON_DECODE_PROTOCOL},
		"answers that are a list":  {`,"inputResponses":[]`, writv1.Reason_REASON_DECODE_PROTOCOL},
		"the server's state":       {`,"requestState":"AEAD"`, writv1.Reason_REASON_DECODE_PROTOCOL},
		"a state that is a number": {`,"requestState":1`, writv1.Reason_REASON_DECODE_PROTOCOL},
	} {
		call := mcpRoute().Decode(asking(`{"elicitation":{}}`, c.more))
		if got := call.Refusal; (got == nil) != (c.want == 0) || got != nil && got.Reason != c.want {
			t.Errorf("%s: refusal %v, want %s", name, got, c.want)
			continue
		}
		if c.want == writv1.Reason_REASON_APPROVAL_DENIED {
			if body := string(call.Deny(&wire.Denial{Refusal: call.Refusal}).Body); !strings.Contains(body, `"isError":true`) {
				t.Errorf("%s: %s", name, body)
			}
		}
		if c.want != 0 {
			continue
		}
		sent, err := call.Rewrite([]byte(`{}`), nil)
		if err != nil || strings.Contains(string(sent.Body), "inputResponses") || strings.Contains(string(sent.Body), "requestState") {
			t.Errorf("%s: sent on: %s, %v", name, sent.Body, err)
		}
	}
}

func TestASessionInTheBodyAgreesWithTheHeaderAndGoesNoFurther(t *testing.T) {
	t.Parallel()
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","_meta":{"dev.writ/session":"t-1","progressToken":5}}}`
	call := mcpRoute().Decode(post(body, "x-writ-session", "t-1"))
	if call.Refusal != nil || call.SessionToken != "t-1" {
		t.Fatalf("refusal %v, token %q", call.Refusal, call.SessionToken)
	}
	sent, err := call.Rewrite([]byte(`{}`), nil)
	want := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{},"_meta":{"progressToken":5}}}`
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(sent.Body)); diff != "" {
		t.Errorf("sent on (-want +got):\n%s", diff)
	}
	if call = mcpRoute().Decode(post(body)); call.Refusal != nil || call.SessionToken != "t-1" {
		t.Errorf("without a header: %v, %q", call.Refusal, call.SessionToken)
	}
	for name, request := range map[string]*wire.Request{
		"another in the header": post(body, "x-writ-session", "t-2"),
		"a number":              post(strings.Replace(body, `"t-1"`, "1", 1)),
	} {
		if call := mcpRoute().Decode(request); call.Refusal == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
