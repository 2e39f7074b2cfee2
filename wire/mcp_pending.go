// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// A call that waits for an approval is answered with a result that asks for input, where
// the client can put a form before its user (revision 2026-07-28, "input_required"): the
// user is told whom to ask, and going on sends the call again. The form is no approval:
// what comes back counts for nothing, but that who declines is not asked again. What the
// approval is of is known without requestState, which is the client's word.

const (
	metaCapabilities = "io.modelcontextprotocol/clientCapabilities"

	// pendingInput names the one input that writ asks for, pendingState begins its state.
	pendingInput = "dev.writ/approval"
	pendingState = "dev.writ/approval:"
)

// elicits says whether the client can put a form before its user. An empty capability
// is one of forms.
func elicits(capabilities jsontext.Value) bool {
	var elicitation jsontext.Value
	if capabilities.Kind() != '{' {
		return false
	}
	err := eachMember(capabilities, func(name []byte, value jsontext.Value) {
		if string(name) == "elicitation" && value.Kind() == '{' {
			elicitation = value
		}
	})
	if err != nil || elicitation == nil {
		return false
	}
	modes, form := 0, false
	err = eachMember(elicitation, func(name []byte, _ jsontext.Value) {
		modes++
		form = form || string(name) == "form"
	})
	return err == nil && (form || modes == 0)
}

// checkState refuses a state that writ did not give out: it would be the server's, and
// writ does not pass on what it cannot read.
func checkState(value jsontext.Value) *reasons.Error {
	if id, ours := strings.CutPrefix(stringOf(value), pendingState); ours && len(id) == 32 {
		return nil
	}
	return brokenRPC("params.requestState", "the state is of no approval; what a server asks for does not pass here")
}

// readResponses reads the answer to the one input that writ asks for.
func readResponses(value jsontext.Value, message *rpcMessage) (refusal *reasons.Error) {
	foreign := brokenRPC("params.inputResponses", "a response is to no approval; what a server asks for does not pass here")
	if value.Kind() != '{' {
		return foreign
	}
	answers := 0
	err := eachMember(value, func(name []byte, answer jsontext.Value) {
		answers++
		if string(name) != pendingInput || answer.Kind() != '{' {
			refusal = foreign
			return
		}
		message.declined = true
		refusal = first(refusal, wrapRPC(eachMember(answer, func(name []byte, value jsontext.Value) {
			if string(name) == "action" {
				message.declined = stringOf(value) != "accept"
			}
		})))
	})
	if answers == 0 {
		return foreign
	}
	return first(refusal, wrapRPC(err))
}

// declined is why a call is not made whose user did not go on.
func declined() *reasons.Error {
	return reasons.New(writv1.Reason_REASON_APPROVAL_DENIED, "params.inputResponses", "the user does not go on with the call")
}

// pends says whether a denial is answered with a request for input.
func (s *mcpSpeaker) pends(denial *Denial) bool {
	return s.stateless && s.message.elicits && denial.ApprovalID != "" && denial.Refusal.Reason == writv1.Reason_REASON_APPROVAL_REQUIRED
}

// pendingBody is the result of a call that waits for an approval.
func (s *mcpSpeaker) pendingBody(denial *Denial) []byte {
	body := s.begin(s.message.id)
	body = append(body, `"result":{"resultType":"input_required","inputRequests":{"`+pendingInput+`":{"method":"elicitation/create","params":{"mode":"form","message":`...)
	body = appendText(body, denialText(denial)+". Ask an approver, and go on once the call is approved. Going on is not an approval.")
	body = append(body, `,"requestedSchema":{"type":"object","properties":{}}}}},"requestState":`...)
	body = appendText(body, pendingState+denial.ApprovalID)
	body = append(body, `,"_meta":{"dev.writ/denial":`...)
	body = appendFacts(body, denial)
	return append(body, `}}}`...)
}
