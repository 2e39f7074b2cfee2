// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"net"
	"path/filepath"
	"slices"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// reserved are the names of writ's own rules, so that a name in a decision means
// one thing.
var reserved = []string{
	"authenticated", "facts", "json", "known", "pinned", "valid", "granted", "tenant_isolation",
	"claim_mismatch", "contract", "provenance", "redaction", "egress", "approved", "claimed_approval", "refused",
}

// crossCheck holds the files against each other.
func (l *loader) crossCheck() {
	l.uniqueNames()
	l.upstreams()
	for _, tool := range l.source.Tools {
		l.tool(tool, l.toolPlace(tool))
	}
	l.bindings()
	l.routes()
	for i, grant := range l.source.Grants {
		l.grantTools(l.grants[i], grant)
	}
	for i, check := range l.source.Checks {
		l.selectors(l.checks[i], check.GetTools())
	}
	for i, rule := range l.source.Approvals {
		l.selectors(l.approvals[i], rule.GetTools())
	}
	for i, rule := range l.source.RiskRules {
		l.selectors(l.riskRules[i], rule.GetTools())
	}
	for i, band := range l.source.RiskBands {
		l.selectors(l.riskBands[i], band.GetTools())
	}
	for i, budget := range l.source.Budgets {
		l.selectors(l.budgets[i], budget.GetTools())
	}
}

func (l *loader) add(problem Problem) { l.problems = append(l.problems, problem) }

// uniqueNames refuses a name that two parts of a kind have, and writ's own names.
func (l *loader) uniqueNames() {
	unique(l, l.source.Grants, l.grants)
	unique(l, l.source.Checks, l.checks)
	unique(l, l.source.Approvals, l.approvals)
	unique(l, l.source.Budgets, l.budgets)
	unique(l, l.source.RiskRules, l.riskRules)
	unique(l, l.source.RiskBands, l.riskBands)
	unique(l, l.source.Limits, l.limits)
	unique(l, l.source.Contracts, l.contracts)
}

func unique[P interface{ GetName() string }](l *loader, parts []P, places []part) {
	first := make(map[string]Problem, len(parts))
	for i, p := range parts {
		name := p.GetName()
		if slices.Contains(reserved, name) {
			l.add(places[i].problem("%s is the name of one of writ's own checks; take another", name))
		}
		if earlier, ok := first[name]; ok {
			l.add(places[i].problem("the name %s is taken by %s:%d", name, earlier.File, earlier.Line))
			continue
		}
		first[name] = places[i].problem("")
	}
}

// upstreams judges the catalogue.
func (l *loader) upstreams() {
	names, domains := make(map[string]bool), make(map[string]string)
	for i, upstream := range l.source.Catalogue.GetUpstreams() {
		place := l.upstreamPlace(i)
		name := upstream.GetName()
		if names[name] {
			l.add(place.with("the name %s is taken by another upstream", name))
		}
		names[name] = true
		if !isAddress(upstream.GetAddress()) {
			l.add(place.with("the address of %s must be a host and a port, such as 127.0.0.1:9000", name))
		}
		if upstream.GetMcpPath() != "" && upstream.GetProtocol() != writv1.Protocol_PROTOCOL_MCP {
			l.add(place.with("%s has an mcp_path and does not speak MCP", name))
		}
		for _, domain := range upstream.GetDomains() {
			if other, ok := domains[domain]; ok && other != name {
				l.add(place.with("the domain %s is taken by %s", domain, other))
			}
			domains[domain] = name
		}
	}
}

func (l *loader) upstreamPlace(index int) Problem {
	problem := Problem{File: catalogueFile}
	if l.catalogue != nil {
		if node := item(l.catalogue.root, "upstreams", index); node != nil {
			problem.Line, problem.Column = node.Line, node.Column
		}
	}
	return problem
}

func isAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number > 0
}

// toolPlace is where the tool's rpc stands.
func (l *loader) toolPlace(tool *tools.Tool) Problem {
	if rpc, ok := l.rpcs[tool.Name]; ok {
		return rpc.place
	}
	return Problem{File: protoFolder}
}

// tool judges what runs a tool.
func (l *loader) tool(tool *tools.Tool, place Problem) {
	switch {
	case tool.Options.GetWeb() != nil:
		if tool.HTTP == nil {
			l.add(place.with("%s is a web tool and its rpc has no google.api.http", tool.Name))
		}
		l.speaks(tool, place, tool.Options.GetWeb().GetUpstream(), writv1.Protocol_PROTOCOL_HTTP_JSON)
	case tool.Options.GetMcp() != nil:
		l.speaks(tool, place, tool.Options.GetMcp().GetUpstream(), writv1.Protocol_PROTOCOL_MCP)
	case tool.Options.GetCommand() != nil:
		program := tool.Options.GetCommand().GetPath()
		if !filepath.IsAbs(program) && !filepath.IsLocal(program) {
			l.add(place.with("the program of %s leaves the bundle's directory", tool.Name))
		}
	}
}

// speaks refuses a tool whose upstream is not there or speaks another protocol.
func (l *loader) speaks(tool *tools.Tool, place Problem, upstream string, protocol writv1.Protocol) {
	for _, u := range l.source.Catalogue.GetUpstreams() {
		if u.GetName() != upstream {
			continue
		}
		if u.GetProtocol() != protocol {
			l.add(place.with("%s needs an upstream that speaks %s, and %s speaks %s", tool.Name, protocol, upstream, u.GetProtocol()))
		}
		return
	}
	l.add(place.with("the catalogue has no upstream %s, which %s names", upstream, tool.Name))
}

// bindings refuses two tools that stand for one tool of an MCP server: which of
// them is called could not be told.
func (l *loader) bindings() {
	taken := make(map[[2]string]string)
	for _, tool := range l.source.Tools {
		binding := tool.Options.GetMcp()
		if binding == nil {
			continue
		}
		key := [2]string{binding.GetUpstream(), binding.GetTool()}
		if other, ok := taken[key]; ok {
			l.add(l.toolPlace(tool).with("%s and %s stand for the same tool of %s", other, tool.Name, binding.GetUpstream()))
		}
		taken[key] = tool.Name
	}
}

// grantTools judges the selectors of a grant. A wildcard that selects nothing is
// a warning in a grant that allows; in one that denies it would leave open what
// somebody thought shut.
func (l *loader) grantTools(place part, grant *writv1.Grant) {
	for i, selector := range grant.GetTools() {
		if l.selects(selector) {
			continue
		}
		problem := place.within("tools", i, "no tool matches %s", selector)
		if grant.GetEffect() == writv1.GrantEffect_GRANT_EFFECT_ALLOW && selector[len(selector)-1] == '*' {
			l.warnings = append(l.warnings, problem)
			continue
		}
		l.add(problem)
	}
}

func (l *loader) selectors(place part, selectors []string) {
	for i, selector := range selectors {
		if !l.selects(selector) {
			l.add(place.within("tools", i, "no tool matches %s", selector))
		}
	}
}

func (l *loader) selects(selector string) bool {
	return selector == policy.AttestUser || selector == policy.AttestTool || slices.ContainsFunc(l.source.Tools, func(tool *tools.Tool) bool { return policy.Selects(selector, tool.Name) })
}

// readRPCs finds the rpc of each tool by the tool's name.
func readRPCs(files *protoregistry.Files) map[string]rpc {
	found := make(map[string]rpc)
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				if r, ok := readRPC(methods.Get(j)); ok {
					found[r.options.GetName()] = r
				}
			}
		}
		return true
	})
	return found
}
