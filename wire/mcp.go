// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/http"
	"strings"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// mcp is the Model Context Protocol over streamable HTTP, in both generations:
// the revisions with sessions, to 2025-11-25, and the stateless 2026-07-28.
// A request is decided on its body; headers that mirror it (SEP-2243) are held
// against it.
type mcp struct{}

// defaultMCPPath is where an MCP server answers unless the catalogue says otherwise.
const defaultMCPPath = "/mcp"

const (
	methodCall     = "tools/call"
	methodDiscover = "server/discover"
	methodList     = "tools/list"

	headerRevision = "mcp-protocol-version"
	headerSession  = "mcp-session-id"

	metaRevision = "io.modelcontextprotocol/protocolVersion"
	metaEnvelope = "dev.writ/envelope"
	metaKey      = "dev.writ/idempotency-key"
	metaSession  = "dev.writ/session"

	// statelessRevision is the first revision without sessions.
	statelessRevision = "2026-07-28"
)

// revisions are those that are understood. A request that names another is
// refused: what it means is not known.
var revisions = map[string]bool{
	"2024-11-05": true, "2025-03-26": true, "2025-06-18": true, "2025-11-25": true,
	statelessRevision: true,
}

// mcpMethod is a method that passes.
type mcpMethod struct {
	notification bool
	// session and stateless say in which generations the method is known.
	session, stateless bool
}

// mcpMethods are all JSON-RPC methods that pass; every other is refused.
var mcpMethods = map[string]mcpMethod{
	methodCall:                  {session: true, stateless: true},
	methodList:                  {session: true, stateless: true},
	methodDiscover:              {stateless: true},
	"initialize":                {session: true},
	"ping":                      {session: true},
	"notifications/initialized": {notification: true, session: true},
	"notifications/cancelled":   {notification: true, session: true, stateless: true},
}

func (mcp) decode(route *Route, request *Request) *Call {
	speaker := &mcpSpeaker{request: request, route: route}
	call := &Call{Kind: KindCall, speaker: speaker}
	call.Refusal = readMCP(route, request, call, speaker)
	return call
}

func readMCP(route *Route, request *Request, call *Call, speaker *mcpSpeaker) *reasons.Error {
	if refusal := request.plain(route.limits.Request.Bytes); refusal != nil {
		return refusal
	}
	if refusal := checkMCPTarget(route, request); refusal != nil {
		return refusal
	}
	if request.Method != http.MethodPost {
		return readSessionMethod(request, call)
	}
	if refusal := request.json(); refusal != nil {
		return refusal
	}
	if err := schemas.Check(request.Body, route.limits.Request); err != nil {
		return reasons.Of(err)
	}
	message, refusal := readRPC(request.Body)
	speaker.message = message
	if refusal != nil {
		return refusal
	}
	return readMCPMessage(route, request, message, call, speaker)
}

// checkMCPTarget refuses every path but the endpoint's, in its plain form.
func checkMCPTarget(route *Route, request *Request) *reasons.Error {
	want := route.upstream.GetMcpPath()
	if want == "" {
		want = defaultMCPPath
	}
	if request.Path != want {
		return reasons.New(writv1.Reason_REASON_DECODE_METHOD_UNKNOWN, "", "the endpoint is %s, without a query", want)
	}
	return nil
}

// readSessionMethod reads what the session revisions do without a body: GET
// opens the server's own stream, DELETE ends the session.
func readSessionMethod(request *Request, call *Call) *reasons.Error {
	known := request.Method == http.MethodGet || request.Method == http.MethodDelete
	revision, refusal := headerRevisionOf(request)
	switch {
	case refusal != nil:
		return refusal
	case !known || revision >= statelessRevision:
		return reasons.New(writv1.Reason_REASON_DECODE_METHOD_UNKNOWN, "", "the HTTP method is not one that MCP has here")
	case len(request.Body) > 0:
		return reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, "", "the request has a body, and its method has none")
	}
	call.Kind, call.Streams = KindHousekeeping, request.Method == http.MethodGet
	return checkSession(request)
}

// headerRevisionOf returns the revision that the header names; empty is none.
func headerRevisionOf(request *Request) (string, *reasons.Error) {
	revision, present, refusal := request.one(headerRevision)
	if refusal == nil && present && !revisions[revision] {
		refusal = unsupportedRevision(headerRevision)
	}
	return revision, refusal
}

func unsupportedRevision(field string) *reasons.Error {
	return reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, field, "the revision of MCP is not supported")
}

// checkSession refuses a session id that two readers could take differently.
func checkSession(request *Request) *reasons.Error {
	session, present, refusal := request.one(headerSession)
	if refusal == nil && present && (session == "" || len(session) > 1024 || !visible(session)) {
		refusal = reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, headerSession, "a session id is visible ASCII")
	}
	return refusal
}

func readMCPMessage(route *Route, request *Request, message *rpcMessage, call *Call, speaker *mcpSpeaker) *reasons.Error {
	revision, refusal := revisionOf(request, message)
	if refusal != nil {
		return refusal
	}
	speaker.stateless = revision >= statelessRevision
	method, known := mcpMethods[message.method]
	known = known && (speaker.stateless && method.stateless || !speaker.stateless && method.session)
	switch {
	case !known:
		return reasons.New(writv1.Reason_REASON_DECODE_METHOD_UNKNOWN, "method", "the method is not one that passes here")
	case method.notification != (message.id == nil):
		return reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, "id", "a request has an id and a notification has none")
	}
	if refusal := checkSession(request); refusal != nil {
		return refusal
	}
	if refusal := checkMirrors(request, message, speaker.stateless); refusal != nil {
		return refusal
	}
	if message.method != methodCall {
		call.Kind, call.Lists = KindHousekeeping, message.method == methodList
		return nil
	}
	return readToolCall(route, request, message, call, speaker)
}

// revisionOf returns the revision a message is of: the header and the message
// agree, or only one says. None is a session revision: "initialize" has no
// header, and neither had 2025-03-26.
func revisionOf(request *Request, message *rpcMessage) (string, *reasons.Error) {
	header, refusal := headerRevisionOf(request)
	meta := message.revision
	switch {
	case refusal != nil:
		return "", refusal
	case meta != "" && !revisions[meta]:
		return "", unsupportedRevision("params._meta")
	case header != "" && meta != "" && header != meta,
		header == "" && meta >= statelessRevision:
		return "", reasons.New(writv1.Reason_REASON_DECODE_HEADER_MISMATCH, headerRevision, "the header disagrees with the revision that the body names")
	case header >= statelessRevision && meta == "" && message.id != nil:
		return "", reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, "params._meta", "a request of this revision names it in its _meta too")
	}
	return max(header, meta), nil
}

func readToolCall(route *Route, request *Request, message *rpcMessage, call *Call, speaker *mcpSpeaker) *reasons.Error {
	call.Envelope = &writv1.Envelope{}
	if message.envelope != nil {
		envelope, refusal := readEnvelope(message.envelope)
		if refusal != nil {
			return refusal
		}
		call.Envelope = envelope
	}
	if call.Envelope.ToolCall == nil {
		call.Envelope.ToolCall = &writv1.ToolCall{}
	}
	name, refusal := route.toolOf(message.name)
	call.Envelope.ToolCall.Name = name
	if refusal != nil {
		return refusal
	}
	speaker.tool = message.name
	call.Arguments = tools.Arguments{JSON: message.arguments}
	if message.declined {
		return declined()
	}
	key, refusal := keyOf(request, message)
	call.IdempotencyKey = key
	if refusal != nil {
		return refusal
	}
	return readSession(route, request, message, call)
}

// readSession reads the token of the caller's session, which agrees with the header.
// Where the body reaches the server as it is, the token may stand in the header alone.
func readSession(route *Route, request *Request, message *rpcMessage, call *Call) *reasons.Error {
	if message.session == nil {
		return nil
	}
	header, present, refusal := request.one(HeaderSession)
	switch {
	case refusal != nil:
		return refusal
	case present && header != *message.session:
		return reasons.New(writv1.Reason_REASON_DECODE_HEADER_MISMATCH, HeaderSession, "the header disagrees with the session in the body")
	case route.upstream.GetEnforcement() == writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ:
		return reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, "params._meta", "the body reaches the server here; name the session in the header "+HeaderSession)
	}
	call.SessionToken = *message.session
	return nil
}

// toolOf returns the bundle's name of the tool that the upstream lists as name.
// A name of the bundle's that the upstream does not list is refused here: were
// it taken as the bundle's tool, what is decided and what runs could differ.
func (r *Route) toolOf(name string) (string, *reasons.Error) {
	if tool, ok := r.named[name]; ok {
		return tool.Name, nil
	}
	if len(name) > 128 {
		return "", reasons.New(writv1.Reason_REASON_TOOL_UNKNOWN, "params.name", "the bundle has no tool of that name on this route")
	}
	if r.known[name] {
		return name, reasons.New(writv1.Reason_REASON_TOOL_UNKNOWN, "params.name", "the bundle has no tool of that name on this route")
	}
	return name, nil
}

// keyOf returns the idempotency key of the header or the message, which agree.
func keyOf(request *Request, message *rpcMessage) (string, *reasons.Error) {
	header, refusal := request.idempotencyKey()
	if refusal != nil || message.key == nil {
		return header, refusal
	}
	if header != "" && header != *message.key {
		return "", reasons.New(writv1.Reason_REASON_DECODE_HEADER_MISMATCH, headerIdempotencyKey, "the header disagrees with the key in the body")
	}
	return *message.key, checkKey("params._meta", *message.key)
}

// isPolicy reports whether a refusal of a tool call is told to the model, as a
// result that it can adapt to, rather than as an error of the protocol.
func isPolicy(reason writv1.Reason) bool {
	name := reasons.Name(reason)
	return reason != writv1.Reason_REASON_TOOL_UNKNOWN &&
		!strings.HasPrefix(name, "DECODE_") && !strings.HasPrefix(name, "PRINCIPAL_")
}
