// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// mcpSpeaker answers one MCP request.
type mcpSpeaker struct {
	request *Request
	route   *Route
	// message is what could be read of the body; nil if nothing.
	message *rpcMessage
	// tool is the name under which the upstream lists the tool.
	tool string
	// stateless says that the request is of a revision without sessions.
	stateless bool
}

// deny writes a denial. A call whose id is known gets an answer that bears the
// id, or its client would wait for one; a refusal of policy is a result that the
// model reads, any other an error of JSON-RPC. A notification gets a status only.
func (s *mcpSpeaker) deny(denial *Denial) *Response {
	reason := denial.Refusal.Reason
	wire := reasons.On(reason)
	switch {
	case s.message == nil && s.request.Method != http.MethodPost:
		return jsonResponse(wire.HTTP, nil)
	case s.message == nil || s.message.id == nil && s.message.method == "":
		return challenge(jsonResponse(wire.HTTP, s.errorBody(denial, jsontext.Value("null"))))
	case s.message.id == nil:
		return challenge(jsonResponse(wire.HTTP, nil))
	case s.message.method == methodCall && s.pends(denial):
		return jsonResponse(http.StatusOK, s.pendingBody(denial))
	case s.message.method == methodCall && isPolicy(reason):
		return jsonResponse(http.StatusOK, s.resultBody(denial))
	}
	return challenge(jsonResponse(s.errorStatus(reason), s.errorBody(denial, s.message.id)))
}

// errorStatus returns the HTTP status of a JSON-RPC error. The session revisions
// read some statuses as the end of the session, so that all but problems of
// authentication and of headers are 200 there.
func (s *mcpSpeaker) errorStatus(reason writv1.Reason) int {
	status := reasons.On(reason).HTTP
	mismatch := reason == writv1.Reason_REASON_DECODE_HEADER_MISMATCH
	if status == http.StatusUnauthorized || mismatch {
		return status
	}
	if s.stateless && reason == writv1.Reason_REASON_DECODE_PROTOCOL {
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// errorBody is a JSON-RPC error.
func (s *mcpSpeaker) errorBody(denial *Denial, id jsontext.Value) []byte {
	body := s.begin(id)
	body = append(body, `"error":{"code":`...)
	body = appendInt(body, reasons.On(denial.Refusal.Reason).JSONRPC)
	body = append(body, `,"message":`...)
	body = appendText(body, denialText(denial))
	body = append(body, `,"data":`...)
	body = appendFacts(body, denial)
	return append(body, `}}`...)
}

// resultBody is the result of a tool call that was not made. What a program may
// want of it stands in _meta: structuredContent would have to match the output
// schema of the tool.
func (s *mcpSpeaker) resultBody(denial *Denial) []byte {
	body := s.begin(s.message.id)
	body = append(body, `"result":{`...)
	if s.stateless {
		body = append(body, `"resultType":"complete",`...)
	}
	body = append(body, `"content":[{"type":"text","text":`...)
	body = appendText(body, denialText(denial))
	body = append(body, `}],"isError":true,"_meta":{"dev.writ/denial":`...)
	body = appendFacts(body, denial)
	return append(body, `}}}`...)
}

func (s *mcpSpeaker) begin(id jsontext.Value) []byte {
	body := append(make([]byte, 0, 512), `{"jsonrpc":"2.0","id":`...)
	body = append(body, id...)
	return append(body, ',')
}

// rewrite makes the whole JSON-RPC message again with the canonical arguments in
// their place, and the headers that mirror them.
func (s *mcpSpeaker) rewrite(canonical []byte, _ protoreflect.Message) (*Sent, error) {
	body := s.begin(s.message.id)
	body = append(body, `"method":"tools/call","params":{"name":`...)
	body = appendText(body, s.tool)
	body = append(body, `,"arguments":`...)
	body = append(body, canonical...)
	meta, err := s.metaSent()
	if err != nil {
		return nil, err
	}
	if len(meta) > 0 {
		body = append(append(body, `,"_meta":`...), meta...)
	}
	body = append(body, `}}`...)
	sent := &Sent{Method: s.request.Method, Path: s.request.Path, Body: body}
	sent.Set = append(sent.Set, Header{Name: headerContentType, Value: typeJSON})
	s.mirror(sent, canonical)
	return sent, nil
}

// metaSent returns _meta without the envelope and the session's token: the planner's
// claims are for the agent, and no business of the server's.
func (s *mcpSpeaker) metaSent() (jsontext.Value, error) {
	if s.message.meta == nil {
		return nil, nil
	}
	meta := jsontext.Value{'{'}
	err := eachMember(s.message.meta, func(name []byte, value jsontext.Value) {
		if string(name) == metaEnvelope || string(name) == metaSession {
			return
		}
		if len(meta) > 1 {
			meta = append(meta, ',')
		}
		meta = append(append(appendText(meta, string(name)), ':'), value...)
	})
	if err != nil {
		return nil, err
	}
	meta = append(meta, '}')
	return meta, meta.Compact()
}

// mirror sets the headers that mirror the rewritten body, of those that came in.
// One that has nothing left to mirror, because the argument is at its default and
// not written, is not sent on.
func (s *mcpSpeaker) mirror(sent *Sent, canonical []byte) {
	found := newMirrored(s.request.Headers)
	if found != nil {
		found.collect(canonical, maxMirrorDepth)
	}
	for i := range s.request.Headers {
		header := s.request.Headers[i]
		switch param, ok := strings.CutPrefix(header.Name, headerParamPrefix); {
		case header.Name == headerMCPMethod:
			header.Value = methodCall
		case header.Name == headerMCPName:
			header.Value = mirrorOf(s.tool)
		case ok:
			text, one := found.text(param)
			if !one {
				sent.Remove = append(sent.Remove, header.Name)
				continue
			}
			header.Value = mirrorOf(text)
		default:
			continue
		}
		sent.Set = append(sent.Set, header)
	}
}
