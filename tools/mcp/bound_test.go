// SPDX-License-Identifier: Apache-2.0

package mcp_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/mcp"
)

func TestBoundOfFindsToolsOfMCPServers(t *testing.T) {
	t.Parallel()
	bound := func(name, upstream string) *tools.Tool {
		return &tools.Tool{Name: name, Options: &writv1.ToolOptions{Executor: &writv1.ToolOptions_Mcp{
			Mcp: &writv1.McpBinding{Upstream: upstream, Tool: "x", DefinitionDigest: "d"},
		}}}
	}
	all := []*tools.Tool{
		bound("a.x", "plain"), bound("b.x", "placed"), bound("c.x", "absent"),
		{Name: "d.x", Options: &writv1.ToolOptions{}},
	}
	catalogue := &writv1.Catalogue{Upstreams: []*writv1.Upstream{{Name: "plain"}, {Name: "placed", McpPath: "/v1"}}}
	want := []mcp.Bound{
		{Tool: "a.x", Upstream: "plain", Path: "/mcp", Name: "x", Digest: "d"},
		{Tool: "b.x", Upstream: "placed", Path: "/v1", Name: "x", Digest: "d"},
	}
	if diff := cmp.Diff(want, mcp.BoundOf(all, catalogue)); diff != "" {
		t.Errorf("bound (-want +got):\n%s", diff)
	}
}
