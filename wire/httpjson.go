// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/http"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// httpJSON is JSON over HTTP. The method and path choose the tool, by the
// google.api.http option of its rpc; body, path and query are its arguments.
type httpJSON struct{}

func (httpJSON) decode(route *Route, request *Request) *Call {
	speaker := &httpSpeaker{route: route, request: request}
	call := &Call{Kind: KindCall, speaker: speaker}
	call.Refusal = readHTTP(route, request, call, speaker)
	return call
}

func readHTTP(route *Route, request *Request, call *Call, speaker *httpSpeaker) *reasons.Error {
	if refusal := request.plain(route.limits.Request.Bytes); refusal != nil {
		return refusal
	}
	path, query, _ := strings.Cut(request.Path, "?")
	if refusal := plainPath(path); refusal != nil {
		return refusal
	}
	params, refusal := readQuery(query)
	if refusal != nil {
		return refusal
	}
	if strings.HasSuffix(request.Path, "?") {
		return ambiguous("an empty query")
	}
	tool, bound := route.bound.match(request.Method, path)
	if tool == nil {
		return reasons.New(writv1.Reason_REASON_DECODE_METHOD_UNKNOWN, "", "no tool of this route has that method and path")
	}
	speaker.tool = tool
	if refusal := misplaced(tool, params); refusal != nil {
		return refusal
	}
	if refusal := readClaims(request, call); refusal != nil {
		return refusal
	}
	call.Envelope.ToolCall.Name = tool.Name
	text, refusal := readBody(route, request, tool)
	if refusal != nil {
		return refusal
	}
	call.Arguments = tools.Arguments{JSON: text, Params: append(bound, params...)}
	call.IdempotencyKey, refusal = request.idempotencyKey()
	return refusal
}

// misplaced refuses parameters of a query that speak of what the body holds: a
// service may read either.
func misplaced(tool *tools.Tool, query []schemas.Param) *reasons.Error {
	body := tool.HTTP.Body()
	if body == "*" && len(query) > 0 {
		return ambiguous("a query beside a body that holds all fields")
	}
	for _, param := range query {
		if field, _, _ := strings.Cut(param.Field, "."); body != "" && field == body {
			return ambiguous("a field of the body in the query")
		}
	}
	return nil
}

// readClaims reads the envelope from its header.
func readClaims(request *Request, call *Call) *reasons.Error {
	call.Envelope = &writv1.Envelope{}
	text, present, refusal := request.one(headerEnvelope)
	if refusal != nil {
		return refusal
	}
	if present {
		if call.Envelope, refusal = readEnvelope([]byte(text)); refusal != nil {
			return refusal
		}
	}
	if call.Envelope.ToolCall == nil {
		call.Envelope.ToolCall = &writv1.ToolCall{}
	}
	return nil
}

// readBody returns the body as arguments; where the binding says that it is one
// field of them, as that field.
func readBody(route *Route, request *Request, tool *tools.Tool) ([]byte, *reasons.Error) {
	field := tool.HTTP.Body()
	if field == "" {
		if len(request.Body) > 0 {
			return nil, reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, "", "the request has a body, and its method and path have none")
		}
		return []byte("{}"), nil
	}
	if refusal := request.json(); refusal != nil {
		return nil, refusal
	}
	if len(request.Body) == 0 {
		return nil, reasons.New(writv1.Reason_REASON_DECODE_MALFORMED, "", "the body is empty")
	}
	if field == "*" {
		return request.Body, nil
	}
	// Checked before it is put into another text, which it could break out of.
	if err := schemas.Check(request.Body, route.limits.Request); err != nil {
		return nil, reasons.Of(err)
	}
	text := append(appendText([]byte{'{'}, field), ':')
	return append(append(text, request.Body...), '}'), nil
}

// httpSpeaker answers one request.
type httpSpeaker struct {
	route   *Route
	request *Request
	// tool is the tool of the method and path; nil if there is none.
	tool *tools.Tool
}

// deny writes problem details (RFC 9457).
func (s *httpSpeaker) deny(denial *Denial) *Response {
	return problem(reasons.On(denial.Refusal.Reason).HTTP, denial)
}

// rewrite makes path, query and body again from the typed message. One that has no
// plain path or query is an error, and is not sent on.
func (s *httpSpeaker) rewrite(canonical []byte, message protoreflect.Message) (*Sent, error) {
	if message == nil {
		read, err := s.tool.Request.Read(canonical, nil, s.route.limits.Request)
		if err != nil {
			return nil, err
		}
		message = read
	}
	method, path, query, body := s.tool.HTTP.Render(message)
	if path == "" {
		return nil, ambiguous("no request says the arguments in one way")
	}
	if query != "" {
		path += "?" + query
	}
	sent := &Sent{Method: method, Path: path, Body: body}
	if len(body) > 0 {
		sent.Set = []Header{{Name: headerContentType, Value: typeJSON}}
	}
	return sent, nil
}

// answer checks a JSON body. A failing status passes with problem details in
// place of its body, which nothing types.
func (s *httpSpeaker) answer(response *Response, decisionID string, validate Validate) *Answer {
	if response.Status/100 != 2 {
		failure := reasons.New(writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS, "", "the upstream answered with status %d", response.Status)
		denial := &Denial{Refusal: failure, DecisionID: decisionID}
		return &Answer{Response: problem(failingStatus(response.Status), denial), Failure: failure}
	}
	body, failure := s.checked(response, validate)
	if failure != nil {
		return &Answer{Response: s.deny(&Denial{Refusal: failure, DecisionID: decisionID}), Failure: failure}
	}
	answer := &Response{Status: response.Status, Body: body}
	if body != nil {
		answer.Headers = []Header{{Name: headerContentType, Value: typeJSON}}
	}
	return &Answer{Response: answer}
}

// list is not called: HTTP lists no tools.
func (s *httpSpeaker) list(response *Response, _ Visible) *Response { return response }

// checked returns the typed body. No body is the message without fields.
func (s *httpSpeaker) checked(response *Response, validate Validate) ([]byte, *reasons.Error) {
	if failure := response.plain(s.route.limits.Response.Bytes); failure != nil {
		return nil, failure
	}
	if len(response.Body) == 0 {
		_, failure := validate([]byte("{}"))
		return nil, failure
	}
	if !isJSON(response.header(headerContentType)) {
		return nil, badAnswer("its content type is not JSON")
	}
	return validate(response.Body)
}

// problem writes problem details with a type that names the reason.
func problem(status int, denial *Denial) *Response {
	name := reasons.Name(denial.Refusal.Reason)
	body := append(make([]byte, 0, 512), `{"type":`...)
	body = appendText(body, reasonType+name)
	body = append(body, `,"title":`...)
	body = appendText(body, title(status, denial))
	body = append(body, `,"status":`...)
	body = appendInt(body, status)
	body = append(body, `,"detail":`...)
	body = appendText(body, denial.Refusal.Message)
	body = append(body, `,"reason":`...)
	body = appendText(body, name)
	body = append(appendDetails(body, denial), '}')
	response := jsonResponse(status, body)
	response.Headers[0].Value = typeProblem
	return challenge(response)
}

// title is the same for every occurrence of a status, as RFC 9457 asks.
func title(status int, denial *Denial) string {
	if denial.ApprovalID != "" {
		return "Approval Required"
	}
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "Request Refused"
}
