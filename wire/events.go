// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"mime"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/tools/schemas"
)

// isEventStream reports whether a content type is that of server-sent events.
func isEventStream(value string) bool {
	media, _, err := mime.ParseMediaType(value)
	return err == nil && media == "text/event-stream"
}

// responseEvent returns the one JSON-RPC response in a whole stream of events.
// Requests and notifications of the server are left out; a stream with none or
// several responses, or with data that is not an object, has no single response.
func responseEvent(stream []byte, limits schemas.Limits) (response []byte, found bool) {
	valid := true
	eachEvent(stream, func(data []byte) {
		method, err := isRequest(data, limits)
		switch {
		case err != nil || !method && found:
			valid = false
		case !method:
			response, found = data, true
		}
	})
	return response, found && valid
}

// isRequest reports whether a message of the server has a method.
func isRequest(message []byte, limits schemas.Limits) (bool, error) {
	if err := schemas.Check(message, limits); err != nil {
		return false, err
	}
	has := false
	err := eachMember(message, func(member []byte, _ jsontext.Value) {
		has = has || string(member) == "method"
	})
	return has, err
}

// eachEvent calls visit with the data of every event that has some, as the HTML
// standard reads them: lines end with CR, LF or both; an event that no empty line
// ends is not one, nor is one whose data is empty, as MCP servers send it first.
func eachEvent(stream []byte, visit func(data []byte)) {
	stream = bytes.TrimPrefix(stream, []byte("\xef\xbb\xbf"))
	var data []byte
	some := false
	for len(stream) > 0 {
		line, rest, ended := cutLine(stream)
		stream = rest
		switch field, value := cutField(line); {
		case !ended:
			return
		case len(line) == 0:
			if len(data) > 0 {
				visit(data)
			}
			data, some = nil, false
		case string(field) == "data":
			if some {
				data = append(data, '\n')
			}
			data, some = append(data, value...), true
		}
	}
}

// cutLine cuts the first line off stream; a last line without an end is not one.
func cutLine(stream []byte) (line, rest []byte, ended bool) {
	end := bytes.IndexAny(stream, "\r\n")
	if end < 0 {
		return nil, nil, false
	}
	rest = stream[end+1:]
	if stream[end] == '\r' && len(rest) > 0 && rest[0] == '\n' {
		rest = rest[1:]
	}
	return stream[:end], rest, true
}

// cutField cuts a line into its field and its value, less one leading space.
func cutField(line []byte) (field, value []byte) {
	field, value, _ = bytes.Cut(line, []byte{':'})
	return field, bytes.TrimPrefix(value, []byte{' '})
}
