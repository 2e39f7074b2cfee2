// SPDX-License-Identifier: Apache-2.0

package mcp

import (
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// defaultPath is Upstream.mcp_path when it is not set.
const defaultPath = "/mcp"

// BoundOf returns those of a bundle's tools that are bound to tools of MCP
// servers. One whose upstream the catalogue does not name is left out, and so is
// never seen.
func BoundOf(all []*tools.Tool, catalogue *writv1.Catalogue) []Bound {
	paths := make(map[string]string)
	for _, upstream := range catalogue.GetUpstreams() {
		paths[upstream.GetName()] = defaultPath
		if path := upstream.GetMcpPath(); path != "" {
			paths[upstream.GetName()] = path
		}
	}
	var bound []Bound
	for _, tool := range all {
		binding := tool.Options.GetMcp()
		path, found := paths[binding.GetUpstream()]
		if binding == nil || !found {
			continue
		}
		bound = append(bound, Bound{
			Tool: tool.Name, Upstream: binding.GetUpstream(), Path: path,
			Name: binding.GetTool(), Digest: binding.GetDefinitionDigest(),
		})
	}
	return bound
}
