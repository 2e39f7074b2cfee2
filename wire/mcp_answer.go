// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

// toolResult is the result of a tools/call as far as it is known. Members that
// are not listed here do not pass.
type toolResult struct {
	content, structured jsontext.Value
	failed              bool
	// kind is the resultType of the stateless revision.
	kind string
}

// answer checks the upstream's response to a tools/call. The typed answer of a
// tool is its structuredContent; of a tool that has none it is the object
// {"content": [...]}. What the caller gets is made from the typed answer alone:
// text content that repeats structuredContent is written again from it, and
// _meta, progress and log messages and requests of the server do not pass.
func (s *mcpSpeaker) answer(response *Response, decisionID string, validate Validate) *Answer {
	if response.Status/100 != 2 {
		failure := reasons.New(writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS, "", "the upstream answered with status %d", response.Status)
		body := s.errorBody(&Denial{Refusal: failure, DecisionID: decisionID}, s.message.id)
		return &Answer{Response: jsonResponse(failingStatus(response.Status), body), Failure: failure}
	}
	written, failure := s.writeAnswer(response, validate)
	if written != nil {
		return &Answer{Response: jsonResponse(http.StatusOK, written), Failure: failure}
	}
	return &Answer{Response: s.deny(&Denial{Refusal: failure, DecisionID: decisionID}), Failure: failure}
}

// writeAnswer returns what the caller gets for a response; nil if nothing of it
// may pass.
func (s *mcpSpeaker) writeAnswer(response *Response, validate Validate) ([]byte, *reasons.Error) {
	result, failure := s.readResponse(response)
	if failure != nil {
		return nil, failure
	}
	read, failure := readToolResult(result)
	if failure != nil {
		return nil, failure
	}
	return s.writeResult(read, validate)
}

// failingStatus keeps an upstream's failing status; another is not one that a
// failure may bear.
func failingStatus(status int) int {
	if status < 400 || status > 599 {
		return http.StatusBadGateway
	}
	return status
}

func badAnswer(detail string) *reasons.Error {
	return reasons.New(writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID, "", "the upstream's answer is not one that can be checked: %s", detail)
}

// readResponse returns the result of the JSON-RPC response in a body that is JSON
// or a stream of events that has ended.
func (s *mcpSpeaker) readResponse(response *Response) (jsontext.Value, *reasons.Error) {
	if failure := response.plain(s.route.limits.Response.Bytes); failure != nil {
		return nil, failure
	}
	body := response.Body
	switch kind := response.header(headerContentType); {
	case isEventStream(kind):
		var found bool
		if body, found = responseEvent(body, s.route.limits.Response); !found {
			return nil, badAnswer("the stream holds no single response")
		}
	case !isJSON(kind):
		return nil, badAnswer("its content type is neither JSON nor an event stream")
	}
	if err := schemas.Check(body, s.route.limits.Response); err != nil {
		return nil, badAnswer("it is not one JSON value within the limits")
	}
	return s.readResult(body)
}

func (s *mcpSpeaker) readResult(body []byte) (jsontext.Value, *reasons.Error) {
	var version, id, result, fault jsontext.Value
	known := true
	err := eachMember(body, func(name []byte, value jsontext.Value) {
		switch string(name) {
		case "jsonrpc":
			version = value
		case "id":
			id = value
		case "result":
			result = value
		case "error":
			fault = value
		default:
			known = false
		}
	})
	switch {
	case err != nil || !known || string(version) != `"2.0"`:
		return nil, badAnswer("it is not a JSON-RPC response")
	case !sameID(id, s.message.id):
		return nil, badAnswer("it bears another id")
	case fault != nil && result == nil:
		return nil, reasons.New(writv1.Reason_REASON_EXECUTION_FAILED, "", "the upstream answered with an error of its protocol")
	case fault != nil || result.Kind() != '{':
		return nil, badAnswer("it has no result")
	}
	return result, nil
}

// sameID compares ids: a string by its text, a number by its digits.
func sameID(one, other jsontext.Value) bool {
	if one.Kind() == '"' && other.Kind() == '"' {
		return stringOf(one) == stringOf(other)
	}
	return bytes.Equal(one, other)
}

func readToolResult(result jsontext.Value) (*toolResult, *reasons.Error) {
	read := &toolResult{kind: "complete"}
	err := eachMember(result, func(name []byte, value jsontext.Value) {
		switch string(name) {
		case "content":
			read.content = value
		case "structuredContent":
			read.structured = value
		case "isError":
			read.failed = value.Kind() != 'f'
		case "resultType":
			read.kind = stringOf(value)
		}
	})
	switch {
	case err != nil:
		return nil, badAnswer("its result cannot be read")
	case read.kind != "complete":
		return nil, badAnswer("it asks for something instead of answering")
	}
	return read, nil
}

// writeResult returns the JSON-RPC response that the caller gets, or nil if the
// tool's answer is not of its type. A tool that says it failed gives both.
func (s *mcpSpeaker) writeResult(result *toolResult, validate Validate) ([]byte, *reasons.Error) {
	content, structured, failure := checkedContent(result, validate)
	if result.failed {
		failed := reasons.New(writv1.Reason_REASON_EXECUTION_FAILED, "", "the tool says that it failed")
		if failure != nil {
			return nil, failed
		}
		failure = failed
	} else if failure != nil {
		return nil, failure
	}
	body := s.begin(s.message.id)
	body = append(body, `"result":{`...)
	if s.stateless {
		body = append(body, `"resultType":"complete",`...)
	}
	body = append(append(body, `"content":`...), content...)
	if structured != nil {
		body = append(append(body, `,"structuredContent":`...), structured...)
	}
	if result.failed {
		return append(body, `,"isError":true}}`...), failure
	}
	return append(body, `,"isError":false}}`...), nil
}

// checkedContent returns content and structuredContent of a checked answer.
func checkedContent(result *toolResult, validate Validate) (content, structured []byte, failure *reasons.Error) {
	if result.structured != nil {
		checked, failure := validate(result.structured)
		if failure != nil {
			return nil, nil, failure
		}
		content = append(appendText([]byte(`[{"type":"text","text":`), string(checked)), `}]`...)
		return content, checked, nil
	}
	if result.content == nil {
		return nil, nil, badAnswer("its result has no content")
	}
	checked, failure := validate(append(append([]byte(`{"content":`), result.content...), '}'))
	if failure != nil {
		return nil, nil, failure
	}
	content = []byte("[]")
	err := eachMember(checked, func(name []byte, value jsontext.Value) {
		if string(name) == "content" && value.Kind() == '[' {
			content = value
		}
	})
	if err != nil {
		return nil, nil, badAnswer("its result cannot be read")
	}
	return content, nil, nil
}
