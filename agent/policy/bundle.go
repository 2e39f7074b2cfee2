// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// Source is what a bundle is made of: messages that keep their own rules, whose
// names are unique and refer to what is there. agent/bundles sees to that.
type Source struct {
	// Manifest is bundle.yaml.
	Manifest *writv1.BundleManifest
	// Digest is the digest of the files.
	Digest [32]byte
	// Tools are the tools, Files the descriptors that their types come from.
	Tools []*tools.Tool
	Files *protoregistry.Files
	// Grants, Checks and Budgets are those of all files.
	Grants  []*writv1.Grant
	Checks  []*writv1.CheckRule
	Budgets []*writv1.Budget
	// Approvals are the approval rules of all files.
	Approvals []*writv1.ApprovalRule
	// RiskRules and RiskBands are those of all files.
	RiskRules []*writv1.RiskRule
	RiskBands []*writv1.RiskBand
	// Limits are the session limits of all files.
	Limits []*writv1.SessionLimit
	// Contracts are those of all files, Types the messages that their inputs and outputs
	// are, by full name, as far as the protos have them.
	Contracts []*writv1.Contract
	Types     map[string]*schemas.Message
	// Catalogue has the upstreams.
	Catalogue *writv1.Catalogue
}

// Bundle is everything that decides, compiled. It is immutable: any number of
// goroutines may decide under it.
type Bundle struct {
	manifest  *writv1.BundleManifest
	catalogue *writv1.Catalogue
	digest    [32]byte
	grants    int

	// tools and entries hold the same tools, by name.
	tools   []*tools.Tool
	entries map[string]*entry
	// upstreams has the catalogue's upstreams by name.
	upstreams map[string]*writv1.Upstream
	// rules are the named checks, in the order of their names; named has the names.
	rules       []*rule
	named       map[string]bool
	unevaluated []*writv1.Check
	// budgets are the budgets by their names.
	budgets map[string]*budget
	// limits are the session limits, in the order of their names.
	limits []*limit
	// contracts are the contracts by name.
	contracts map[string]*contract
	// attesting are the grants that let principals attest, by what.
	attesting map[string][]*grant
	// scores says that calls get a risk score.
	scores bool
	// provenance is whether anything in the bundle asks where values came from.
	provenance bool
	// adapter makes CEL values of the principal, the envelope and the arguments.
	adapter adapter
}

// entry is a tool with everything that bears on a call of it.
type entry struct {
	tool      *tools.Tool
	grants    *index
	rules     []applied
	budgets   []*budget
	approvals []approvalRule
	risk      risk
	meter     *meter
	// shared says that agents share any of the budgets.
	shared bool
	// contracted says that any of the budgets is a contract's.
	contracted bool
	// alerting says that any of the budgets gives alerts.
	alerting    bool
	obligations []*writv1.Obligation
	tenantBound bool
	// demands are what the request's fields demand of their values' provenance.
	demands []demand
	// uses is what the rules on the tool ask of facts.
	uses uses
	// keptArguments and keptResults are the fields that conditions on later calls
	// ask for, by their paths in canonical JSON.
	keptArguments, keptResults []keptPath
	// worth is what the values of a result are worth, by the path of their field.
	worth map[string]sessions.Worth
	// unseen is the most that a result may have been which nobody saw.
	unseen unseen
	// audience are the fields of the request that say to whom a sink sends it.
	audience map[string]bool
	// enums are the fields of the request whose values are fixed.
	enums map[string]bool
}

// Name returns the bundle's name.
func (b *Bundle) Name() string { return b.manifest.GetName() }

// Digest returns the digest of the bundle's files: its version.
func (b *Bundle) Digest() [32]byte { return b.digest }

// SandboxTier returns the least sandbox tier an agent must have for the bundle:
// what the manifest demands, and T1 where a tool is a command.
func (b *Bundle) SandboxTier() writv1.SandboxTier {
	tier := b.manifest.GetSandboxTier()
	for _, tool := range b.tools {
		if command := tool.Options.GetCommand(); command != nil {
			tier = max(tier, writv1.SandboxTier_SANDBOX_TIER_T1, command.GetSandboxTier())
		}
	}
	return tier
}

// Grants returns how many grants the bundle has.
func (b *Bundle) Grants() int { return b.grants }

// Tool returns the tool of that name, or nil.
func (b *Bundle) Tool(name string) *tools.Tool {
	if entry, ok := b.entries[name]; ok {
		return entry.tool
	}
	return nil
}

// Tools returns the tools in the order of their names.
func (b *Bundle) Tools() []*tools.Tool { return slices.Clone(b.tools) }

// Catalogue returns the upstreams that calls may reach.
func (b *Bundle) Catalogue() *writv1.Catalogue { return b.catalogue }

// Upstream returns the upstream of that name, or nil.
func (b *Bundle) Upstream(name string) *writv1.Upstream { return b.upstreams[name] }

// Unevaluated returns the named checks as they stand in a decision that was made
// before any of them could be evaluated. They MUST NOT be changed.
func (b *Bundle) Unevaluated() []*writv1.Check { return slices.Clone(b.unevaluated) }

// Visible returns the tools that some grant may let who call, in the order of
// their names. Conditions are ignored: a tool that is not here is denied whatever
// the arguments, and one that is may be denied all the same.
func (b *Bundle) Visible(who *writv1.Principal) []*tools.Tool {
	if who.GetWorkload() == "" && who.GetUser() == "" {
		return nil
	}
	var visible []*tools.Tool
	for _, tool := range b.tools {
		if b.entries[tool.Name].visible(who) {
			visible = append(visible, tool)
		}
	}
	return visible
}

func (t *entry) visible(who *writv1.Principal) bool {
	allowed := false
	for _, m := range t.grants.find(who, nil) {
		switch {
		case m.grant.effect == writv1.GrantEffect_GRANT_EFFECT_ALLOW:
			allowed = true
		case m.condition == nil:
			return false
		}
	}
	return allowed && (!t.tenantBound || who.GetTenant() != "")
}

// find returns the tool that the call names, if it may be reached there.
func (b *Bundle) find(c *Call) *entry {
	entry, ok := b.entries[c.Envelope.GetToolCall().GetName()]
	if !ok || c.Upstream != "" && c.Upstream != UpstreamOf(entry.tool) {
		return nil
	}
	return entry
}

// UpstreamOf returns the name of the upstream that a tool belongs to, or "".
func UpstreamOf(tool *tools.Tool) string {
	if web := tool.Options.GetWeb(); web != nil {
		return web.GetUpstream()
	}
	return tool.Options.GetMcp().GetUpstream()
}

// Selects says whether a selector (a name, a prefix followed by ".*", or "*")
// speaks of a tool.
func Selects(selector, tool string) bool {
	if selector == "*" || selector == tool {
		return true
	}
	prefix, ok := strings.CutSuffix(selector, "*")
	return ok && strings.HasSuffix(prefix, ".") && strings.HasPrefix(tool, prefix)
}

// bindsTenant says whether a message has a field that is bound to the tenant,
// at any depth.
func bindsTenant(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[message.FullName()] {
		return false
	}
	seen[message.FullName()] = true
	fields := message.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if fieldPolicy(field).GetBinding() == writv1.Binding_BINDING_TENANT {
			return true
		}
		if field.IsMap() {
			field = field.MapValue()
		}
		if field.Message() != nil && bindsTenant(field.Message(), seen) {
			return true
		}
	}
	return false
}
