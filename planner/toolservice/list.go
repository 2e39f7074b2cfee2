// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

const (
	// defaultPage is ListToolsRequest.page_size when it is not set.
	defaultPage = 100
	// pageBytes is after how many bytes a page ends early: half of what gRPC
	// clients take by default, which leaves room for one more tool.
	pageBytes = 2 << 20
)

// listTools lists what a grant may allow the caller to call, by name. It decides
// nothing, and so leaves no record.
func (s *Server) listTools(in *incoming) (*writv1.ListToolsResponse, error) {
	request := &writv1.ListToolsRequest{}
	principal, refusal := s.identify(in.ctx)
	if refusal == nil {
		refusal = s.read(in.data, request)
	}
	if refusal != nil {
		return nil, refused(refusal, details{})
	}
	after, err := base64.RawURLEncoding.DecodeString(request.GetPageToken())
	if err != nil {
		return nil, refused(reasons.Wrap(err, writv1.Reason_REASON_DECODE_MALFORMED, "page_token", "not a token of a page before"), details{})
	}
	bundle := s.agent.Bundle()
	if bundle == nil {
		return nil, refused(reasons.New(writv1.Reason_REASON_AGENT_NO_BUNDLE, "", "the agent has no bundle"), details{})
	}
	return page(bundle.Visible(principal), string(after), int(request.GetPageSize())), nil
}

// page returns at most size tools whose names come after the given one. A name
// marks the place better than a number: a bundle may be swapped between pages.
func page(all []*tools.Tool, after string, size int) *writv1.ListToolsResponse {
	if size == 0 {
		size = defaultPage
	}
	first, found := slices.BinarySearchFunc(all, after, func(t *tools.Tool, name string) int { return strings.Compare(t.Name, name) })
	if found {
		first++
	}
	response := &writv1.ListToolsResponse{}
	bytes := 0
	for _, tool := range all[first:] {
		if len(response.GetTools()) == size || bytes > pageBytes {
			last := response.GetTools()[len(response.GetTools())-1].GetName()
			response.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(last))
			break
		}
		info := describe(tool)
		bytes += proto.Size(info)
		response.Tools = append(response.Tools, info)
	}
	return response
}

func describe(tool *tools.Tool) *writv1.ToolInfo {
	options := tool.Options
	info := &writv1.ToolInfo{
		Name:           tool.Name,
		Description:    tool.Description,
		Risk:           options.GetRisk(),
		Effect:         options.GetEffect(),
		Repeat:         options.GetRepeat(),
		Executable:     options.GetCommand() != nil || options.GetWeb() != nil,
		RequestSchema:  &writv1.Json{Text: tool.Request.JSONSchema()},
		ResponseSchema: &writv1.Json{Text: tool.Response.JSONSchema()},
		SchemaDigest:   "sha256:" + hex.EncodeToString(tool.SchemaDigest[:]),
	}
	return info
}
