// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// list leaves out of the response to a tools/list what the caller may not call. A
// list that cannot be read does not pass; an error of the server does.
func (s *mcpSpeaker) list(response *Response, visible Visible) *Response {
	if response.Status/100 != 2 {
		return response
	}
	result, failure := s.readResponse(response)
	if failure != nil && failure.Reason == writv1.Reason_REASON_EXECUTION_FAILED {
		return response
	}
	if failure != nil {
		return s.listFailed(failure)
	}
	body, err := s.writeList(result, visible)
	if err != nil {
		return s.listFailed(badAnswer("it is not a list of tools"))
	}
	return jsonResponse(http.StatusOK, body)
}

func (s *mcpSpeaker) listFailed(failure *reasons.Error) *Response {
	return jsonResponse(http.StatusOK, s.errorBody(&Denial{Refusal: failure}, s.message.id))
}

// writeList writes the result again. A list made for one caller is cached for
// nobody else.
func (s *mcpSpeaker) writeList(result jsontext.Value, visible Visible) ([]byte, error) {
	body := append(s.begin(s.message.id), `"result":{`...)
	first, listed := true, errShape
	err := eachMember(result, func(name []byte, value jsontext.Value) {
		if !first {
			body = append(body, ',')
		}
		first = false
		body = append(appendText(body, string(name)), ':')
		switch string(name) {
		case "tools":
			body, listed = s.appendVisible(body, value, visible)
		case "cacheScope":
			body = append(body, `"private"`...)
		default:
			body = append(body, value...)
		}
	})
	if err != nil {
		return nil, err
	}
	return append(body, `}}`...), listed
}

// appendVisible appends the list of tools with those that are visible.
func (s *mcpSpeaker) appendVisible(dst []byte, tools jsontext.Value, visible Visible) ([]byte, error) {
	dst = append(dst, '[')
	first := true
	err := eachElement(tools, func(tool jsontext.Value) {
		known, ok := s.route.named[nameOf(tool)]
		if !ok || !visible(known.Name) {
			return
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, tool...)
	})
	return append(dst, ']'), err
}

// nameOf returns the name of a listed tool; empty if it has none.
func nameOf(tool jsontext.Value) string {
	var name string
	err := eachMember(tool, func(member []byte, value jsontext.Value) {
		if string(member) == "name" {
			name = stringOf(value)
		}
	})
	if err != nil {
		return ""
	}
	return name
}
