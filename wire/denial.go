// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// reasonType is the prefix of the type URI of a problem (RFC 9457).
const reasonType = "urn:writ:reason:"

// denialText is a denial in one sentence for whoever reads it, a model included.
func denialText(denial *Denial) string {
	text := manner(denial.Refusal.Reason) + ": " + denial.Refusal.Error()
	if denial.ApprovalID != "" {
		text += "; approval " + denial.ApprovalID
	}
	if denial.DecisionID != "" {
		text += " (decision " + denial.DecisionID + ")"
	}
	return text
}

// manner says in a word or three what became of the call.
func manner(reason writv1.Reason) string {
	name := reasons.Name(reason)
	switch {
	case reason == writv1.Reason_REASON_APPROVAL_REQUIRED:
		return "needs approval"
	case reason == writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID, strings.HasPrefix(name, "EXECUTION_"),
		strings.HasPrefix(name, "AGENT_"), strings.HasPrefix(name, "LEDGER_"):
		return "failed"
	case isPolicy(reason):
		return "denied by policy"
	}
	return "refused"
}

// appendFacts appends the object that holds what a program may want of a denial.
func appendFacts(dst []byte, denial *Denial) []byte {
	dst = append(dst, `{"reason":`...)
	dst = appendText(dst, reasons.Name(denial.Refusal.Reason))
	return append(appendDetails(dst, denial), '}')
}

// appendDetails appends what is known of a denial beside its reason, as members.
func appendDetails(dst []byte, denial *Denial) []byte {
	dst = appendMember(dst, "field", denial.Refusal.Field)
	dst = appendMember(dst, "decision_id", denial.DecisionID)
	dst = appendMember(dst, "earlier_decision_id", denial.EarlierID)
	dst = appendMember(dst, "approval_id", denial.ApprovalID)
	if len(denial.Checks) == 0 {
		return dst
	}
	dst = append(dst, `,"checks":[`...)
	for i, check := range denial.Checks {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, check)
	}
	return append(dst, ']')
}

// appendMember appends a member unless its value is empty.
func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	return appendText(dst, value)
}

// appendText appends text as a JSON string. What is not UTF-8 is replaced: text
// that came in may be anything.
func appendText(dst []byte, text string) []byte {
	// The error says only that something was replaced.
	dst, _ = jsontext.AppendQuote(dst, text)
	return dst
}

func appendInt(dst []byte, number int) []byte {
	return strconv.AppendInt(dst, int64(number), 10)
}

func jsonResponse(status int, body []byte) *Response {
	response := &Response{Status: status, Body: body}
	if body != nil {
		response.Headers = append(response.Headers, Header{Name: headerContentType, Value: typeJSON})
	}
	response.Headers = append(response.Headers, Header{Name: "cache-control", Value: "no-store"})
	return response
}

// challenge adds what RFC 9110 demands of a response with status 401.
func challenge(response *Response) *Response {
	if response.Status == http.StatusUnauthorized {
		response.Headers = append(response.Headers, Header{Name: "www-authenticate", Value: "Bearer"})
	}
	return response
}
