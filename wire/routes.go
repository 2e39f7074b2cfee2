// SPDX-License-Identifier: Apache-2.0

package wire

import (
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// Limits bound the bodies that are read.
type Limits struct {
	// Request bounds the bodies of requests.
	Request schemas.Limits
	// Response bounds the bodies of responses.
	Response schemas.Limits
}

// Defaults of what the configuration leaves open (AgentLimits in config.proto).
const (
	defaultBodyBytes     = 1 << 20
	defaultResponseBytes = 4 << 20
	defaultDepth         = 64
	defaultValues        = 100_000
)

// LimitsOf returns the limits that the configuration asks for.
func LimitsOf(config *writv1.AgentLimits) Limits {
	text := schemas.Limits{
		Depth:  orDefault(config.GetJsonDepth(), defaultDepth),
		Values: orDefault(config.GetJsonValues(), defaultValues),
	}
	limits := Limits{Request: text, Response: text}
	limits.Request.Bytes = orDefault(config.GetBodyBytes(), defaultBodyBytes)
	limits.Response.Bytes = orDefault(config.GetResponseBytes(), defaultResponseBytes)
	return limits
}

func orDefault(configured uint32, fallback int) int {
	if configured == 0 {
		return fallback
	}
	return int(configured)
}

// Routes are the ways to the upstreams of one bundle, by the upstream's name.
// They do not change; several goroutines may use them.
type Routes map[string]*Route

// Route is the way to one upstream.
type Route struct {
	upstream *writv1.Upstream
	protocol protocol
	limits   Limits
	// named are the tools of an MCP upstream by the name under which it lists them.
	named map[string]*tools.Tool
	// bound are the tools of an HTTP upstream.
	bound paths
	// known are the names of all tools of the bundle.
	known map[string]bool
}

// NewRoutes returns the routes to the catalogue's upstreams. All are the tools
// of the bundle, sorted by name; limits bound each body.
func NewRoutes(catalogue *writv1.Catalogue, all []*tools.Tool, limits Limits) Routes {
	known := make(map[string]bool, len(all))
	for _, tool := range all {
		known[tool.Name] = true
	}
	routes := make(Routes, len(catalogue.GetUpstreams()))
	for _, upstream := range catalogue.GetUpstreams() {
		routes[upstream.GetName()] = newRoute(upstream, all, known, limits)
	}
	return routes
}

func newRoute(upstream *writv1.Upstream, all []*tools.Tool, known map[string]bool, limits Limits) *Route {
	route := &Route{
		upstream: upstream, protocol: protocols[upstream.GetProtocol()], limits: limits,
		named: make(map[string]*tools.Tool), known: known,
	}
	for _, tool := range all {
		if mcp := tool.Options.GetMcp(); mcp.GetUpstream() == upstream.GetName() {
			route.named[mcp.GetTool()] = tool
		}
		if tool.HTTP != nil && tool.Options.GetWeb().GetUpstream() == upstream.GetName() {
			route.bound.add(tool)
		}
	}
	return route
}

// Upstream returns the upstream's entry in the catalogue. It MUST NOT be changed.
func (r *Route) Upstream() *writv1.Upstream { return r.upstream }

// Decode reads a whole request. It never returns nil: what it cannot read has a
// Refusal.
func (r *Route) Decode(request *Request) *Call {
	call := r.protocol.decode(r, request)
	if call.Envelope == nil {
		call.Envelope = &writv1.Envelope{}
	}
	return call
}
