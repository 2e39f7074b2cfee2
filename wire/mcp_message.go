// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxIDBytes bounds a JSON-RPC id, which is echoed in every answer.
const maxIDBytes = 256

// rpcMessage is a JSON-RPC 2.0 request or notification as far as it could be
// read. Values point into the body.
type rpcMessage struct {
	// id is the raw id; nil is none.
	id jsontext.Value
	// method is the JSON-RPC method.
	method string
	// meta is the raw params._meta; nil is none.
	meta jsontext.Value
	// arguments are the raw params.arguments; "{}" if there are none.
	arguments jsontext.Value
	// envelope is the raw envelope in _meta; nil is none.
	envelope jsontext.Value
	// name is params.name, revision the revision that _meta names.
	name, revision string
	// key is the idempotency key in _meta, session the session's token; nil is none.
	key, session *string
	// elicits says that the client can put a form before its user.
	elicits bool
	// declined says that the user who was told of a pending approval does not go on.
	declined bool
}

// readRPC reads body, whose syntax was checked. What it could read before it
// came to what it refuses is returned too: the denial needs the id.
func readRPC(body []byte) (*rpcMessage, *reasons.Error) {
	message := &rpcMessage{}
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) > 0 && first[0] == '[' {
		return message, brokenRPC("", "a batch is not a message")
	}
	version, params, refusal := readMembers(body, message)
	if refusal != nil {
		return message, refusal
	}
	switch {
	case version != `"2.0"`:
		return message, brokenRPC("jsonrpc", `it is "2.0"`)
	case message.method == "":
		return message, brokenRPC("method", "a message has a method")
	case params == nil:
		return message, emptyParams(message)
	case params.Kind() != '{':
		return message, brokenRPC("params", "params are an object")
	}
	return message, readParams(params, message)
}

func emptyParams(message *rpcMessage) *reasons.Error {
	if message.method == methodCall {
		return brokenRPC("params", "a call has params")
	}
	return nil
}

func brokenRPC(field, detail string) *reasons.Error {
	return reasons.New(writv1.Reason_REASON_DECODE_PROTOCOL, field, "the JSON-RPC message breaks its rules: %s", detail)
}

// readMembers reads the message's own members. An unknown one is refused after
// the id was found, wherever in the text it stands.
func readMembers(body []byte, message *rpcMessage) (version string, params jsontext.Value, refusal *reasons.Error) {
	err := eachMember(body, func(name []byte, value jsontext.Value) {
		switch string(name) {
		case "jsonrpc":
			version = string(value)
		case "id":
			message.id, refusal = value, first(refusal, checkID(value))
		case "method":
			message.method, refusal = stringOf(value), first(refusal, needString("method", value))
		case "params":
			params = value
		default:
			refusal = first(refusal, brokenRPC("", "it has a member that requests do not have"))
		}
	})
	if err != nil {
		return "", nil, brokenRPC("", "it is not an object")
	}
	if message.id != nil && checkID(message.id) != nil {
		message.id = nil
	}
	return version, params, refusal
}

// readParams reads what the codec needs of params. Of a call's params every
// member is known; those of housekeeping go to the server as they are.
func readParams(params jsontext.Value, message *rpcMessage) (refusal *reasons.Error) {
	call := message.method == methodCall
	named := false
	err := eachMember(params, func(name []byte, value jsontext.Value) {
		switch {
		case string(name) == "_meta":
			message.meta = value
		case call && string(name) == "name":
			named = true
			message.name, refusal = stringOf(value), first(refusal, needString("params.name", value))
		case call && string(name) == "arguments":
			message.arguments = value
		case call && string(name) == "requestState":
			refusal = first(refusal, checkState(value))
		case call && string(name) == "inputResponses":
			refusal = first(refusal, readResponses(value, message))
		case call:
			refusal = first(refusal, brokenRPC("params", "a call has a member that passes unread nowhere"))
		}
	})
	switch {
	case err != nil || refusal != nil:
		return first(refusal, wrapRPC(err))
	case call && !named:
		return brokenRPC("params.name", "a call names its tool")
	case message.arguments != nil && message.arguments.Kind() != '{':
		return brokenRPC("params.arguments", "arguments are an object")
	case message.arguments == nil:
		message.arguments = jsontext.Value("{}")
	}
	return readMeta(message)
}

func readMeta(message *rpcMessage) (refusal *reasons.Error) {
	if message.meta == nil {
		return nil
	}
	if message.meta.Kind() != '{' {
		return brokenRPC("params._meta", "_meta is an object")
	}
	err := eachMember(message.meta, func(name []byte, value jsontext.Value) {
		switch string(name) {
		case metaRevision:
			message.revision, refusal = stringOf(value), first(refusal, needString("params._meta", value))
		case metaEnvelope:
			message.envelope = value
		case metaKey:
			key := stringOf(value)
			message.key, refusal = &key, first(refusal, needString("params._meta", value))
		case metaSession:
			session := stringOf(value)
			message.session, refusal = &session, first(refusal, needString("params._meta", value))
		case metaCapabilities:
			message.elicits = elicits(value)
		}
	})
	return first(refusal, wrapRPC(err))
}

func wrapRPC(err error) *reasons.Error {
	if err == nil {
		return nil
	}
	return reasons.Wrap(err, writv1.Reason_REASON_DECODE_MALFORMED, "", "the body is not one JSON value")
}

// first returns the first refusal that is one.
func first(refusals ...*reasons.Error) *reasons.Error {
	for _, refusal := range refusals {
		if refusal != nil {
			return refusal
		}
	}
	return nil
}

// checkID refuses ids that clients and servers may compare differently: null,
// fractions, exponents, and whatever is neither string nor number.
func checkID(value jsontext.Value) *reasons.Error {
	switch {
	case len(value) > maxIDBytes:
		return brokenRPC("id", "the id is too long")
	case value.Kind() == '"':
		return nil
	case value.Kind() == '0' && !bytes.ContainsAny(value, ".eE") && len(value) <= 20:
		return nil
	}
	return brokenRPC("id", "an id is a string or an integer")
}

func needString(field string, value jsontext.Value) *reasons.Error {
	if value.Kind() != '"' {
		return brokenRPC(field, "it is a string")
	}
	return nil
}

// stringOf returns the text of a JSON string; of another value nothing.
func stringOf(value jsontext.Value) string {
	if value.Kind() != '"' {
		return ""
	}
	text, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return ""
	}
	return string(text)
}
