// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// Part is a part of a bundle that an issue speaks of.
type Part int

const (
	// PartGrant is one of Source.Grants.
	PartGrant Part = iota
	// PartCheck is one of Source.Checks.
	PartCheck
	// PartBudget is one of Source.Budgets.
	PartBudget
	// PartTool is one of Source.Tools.
	PartTool
	// PartLimit is one of Source.Limits.
	PartLimit
	// PartContract is one of Source.Contracts.
	PartContract
	// PartApproval is one of Source.Approvals.
	PartApproval
	// PartRiskRule is one of Source.RiskRules.
	PartRiskRule
	// PartRiskBand is one of Source.RiskBands.
	PartRiskBand
)

// Severity is how grave an issue is.
type Severity int

const (
	// Fatal means that the bundle does not load.
	Fatal Severity = iota
	// Warning means that it loads, and that somebody should look.
	Warning
)

// Issue is something wrong with a part of a bundle.
type Issue struct {
	Severity Severity
	// Part and Index say what it is: Source.Grants[Index], and so on.
	Part  Part
	Index int
	// Path is where in the part the expression stands, by the names of YAML and
	// counting from 0, such as "tools.0.condition"; empty for a part that has one.
	Path string
	// Line and Column are the place in the part's expression, from 1; zero when
	// the issue is with the part as a whole.
	Line, Column int
	// Message says what is wrong and how to mend it.
	Message string
}

const (
	// mostBindings bounds the pairs of a grant and a tool it speaks of: at some 80
	// bytes each in the indexes, 160 MB.
	mostBindings = 2_000_000
	// mostRules bounds the named checks, all of which stand in every decision:
	// Decision.checks has room for 1,024, of which mostMatches, mostNearMisses and
	// mostViolations are spoken for.
	mostRules = 512
	// mostBudgets bounds the budgets on one tool, to the effects of a decision
	// and the balances of its facts.
	mostBudgets = 64
)

// New compiles a bundle. It returns nil when any of the issues is fatal; all are
// returned, not only the first.
func New(source *Source) (*Bundle, []Issue) {
	b := &builder{source: source, bundle: &Bundle{
		manifest:  source.Manifest,
		catalogue: source.Catalogue,
		digest:    source.Digest,
		grants:    len(source.Grants),
		tools:     slices.SortedFunc(slices.Values(source.Tools), func(a, b *tools.Tool) int { return cmp.Compare(a.Name, b.Name) }),
		entries:   make(map[string]*entry, len(source.Tools)),
		upstreams: make(map[string]*writv1.Upstream),
		named:     make(map[string]bool, len(source.Checks)),
		budgets:   make(map[string]*budget, len(source.Budgets)),
	}}
	compiler, err := newCompiler(source.Files)
	if err != nil {
		return nil, []Issue{{Part: PartTool, Message: "the types of the tools cannot be used in conditions: " + err.Error()}}
	}
	b.compiler, b.bundle.adapter = compiler, compiler.adapter
	b.build()
	if slices.ContainsFunc(b.issues, func(i Issue) bool { return i.Severity == Fatal }) {
		return nil, b.issues
	}
	return b.bundle, b.issues
}

// builder is a bundle being compiled.
type builder struct {
	source   *Source
	bundle   *Bundle
	compiler *compiler
	issues   []Issue
}

func (b *builder) build() {
	for _, upstream := range b.source.Catalogue.GetUpstreams() {
		b.bundle.upstreams[upstream.GetName()] = upstream
	}
	b.tools()
	b.grants()
	b.rules()
	b.budgets()
	b.risks()
	b.approvals()
	b.limits()
	b.contracts()
	b.provenance()
	b.sessionBudgets()
}

func (b *builder) issue(part Part, index int, format string, args ...any) {
	b.issues = append(b.issues, Issue{Part: part, Index: index, Message: fmt.Sprintf(format, args...)})
}

func (b *builder) tools() {
	for i, tool := range b.source.Tools {
		obligations, ok := redactions(tool.Response.Descriptor())
		if !ok {
			b.issue(PartTool, i, "the response of %s has more than %d sensitive fields", tool.Name, mostObligations)
		}
		demands, faults := demandsOf(tool.Request.Descriptor())
		for _, fault := range faults {
			b.issue(PartTool, i, "%s: %s", tool.Name, fault)
		}
		meter, faults := newMeter(tool)
		for _, fault := range faults {
			b.issue(PartTool, i, "%s has %s", tool.Name, fault)
		}
		worth := worthOf(tool)
		b.bundle.entries[tool.Name] = &entry{
			tool:        tool,
			meter:       meter,
			obligations: obligations,
			tenantBound: bindsTenant(tool.Request.Descriptor(), make(map[protoreflect.FullName]bool)),
			demands:     demands,
			worth:       worth,
			unseen:      unseenOf(worth),
			enums:       enumsOf(tool.Request.Descriptor()),
			audience:    b.audience(i, tool),
		}
	}
}

// selected returns the tools that selectors speak of, in the order of their names.
func (b *builder) selected(selectors []string) []*entry {
	names := make(map[string]bool)
	for _, selector := range selectors {
		if _, exact := b.bundle.entries[selector]; exact {
			names[selector] = true
			continue
		}
		if !strings.HasSuffix(selector, "*") {
			continue
		}
		for _, tool := range b.bundle.tools {
			if Selects(selector, tool.Name) {
				names[tool.Name] = true
			}
		}
	}
	found := make([]*entry, 0, len(names))
	for _, tool := range b.bundle.tools {
		if len(found) == len(names) {
			break
		}
		if names[tool.Name] {
			found = append(found, b.bundle.entries[tool.Name])
		}
	}
	return found
}

// grants binds every grant to the tools it speaks of, in the order of the
// grants' names, and indexes them.
func (b *builder) grants() {
	of := make(map[*entry][]*bound, len(b.bundle.entries))
	bindings := 0
	for order, i := range inOrder(b.source.Grants) {
		source := b.source.Grants[i]
		grant := newGrant(source, order)
		b.attests(i, grant)
		plain := &bound{grant: grant}
		for _, entry := range b.selected(source.GetTools()) {
			if bindings++; bindings > mostBindings {
				b.issue(PartGrant, i, "the grants speak of more than %d pairs of grant and tool; use fewer wildcards", mostBindings)
				return
			}
			if source.GetCondition() == "" {
				of[entry] = append(of[entry], plain)
				continue
			}
			program, ok := b.compile(PartGrant, i, source.GetCondition(), entry)
			if !ok {
				break
			}
			of[entry] = append(of[entry], &bound{grant: grant, condition: program})
		}
	}
	for _, entry := range b.bundle.entries {
		entry.grants = newIndex(of[entry])
	}
}

// compile compiles the expression of a part for a tool, and notes what is wrong
// with it. What is wrong for one tool is told once, not for each of a wildcard's.
func (b *builder) compile(part Part, index int, expression string, entry *entry) (*program, bool) {
	program, ok := b.compileOn(part, index, "", expression, argumentsOf(entry.tool))
	if ok {
		entry.uses.join(&program.uses)
	}
	return program, ok
}

// compileOn compiles an expression of a part over what it may read, and has kept what
// it asks of earlier calls. Path names the expression in the part, where it has more
// than one.
func (b *builder) compileOn(part Part, index int, path, expression string, of roots) (*program, bool) {
	program, faults := b.compiler.compile(expression, of)
	ok := true
	for _, fault := range faults {
		issue := Issue{Severity: fault.severity, Part: part, Index: index, Path: path, Line: fault.line, Column: fault.column, Message: fault.message}
		ok = ok && fault.severity != Fatal
		if !slices.Contains(b.issues, issue) {
			b.issues = append(b.issues, issue)
		}
	}
	if ok {
		ok = b.keep(part, index, path, program)
	}
	return program, ok
}

// rules compiles the named checks, in the order of their names.
func (b *builder) rules() {
	if len(b.source.Checks) > mostRules {
		b.issue(PartCheck, mostRules, "a bundle has at most %d checks", mostRules)
		return
	}
	for _, i := range inOrder(b.source.Checks) {
		source := b.source.Checks[i]
		rule := newRule(source)
		b.bundle.rules = append(b.bundle.rules, rule)
		b.bundle.named[rule.name] = true
		b.bundle.unevaluated = append(b.bundle.unevaluated, rule.notEvaluated)
		conditions := make(map[*entry]*program)
		for _, entry := range b.selected(source.GetTools()) {
			program, ok := b.compile(PartCheck, i, source.GetExpression(), entry)
			if !ok {
				break
			}
			conditions[entry] = program
		}
		for _, entry := range b.bundle.entries {
			entry.rules = append(entry.rules, applied{rule: rule, condition: conditions[entry]})
		}
	}
}

// budgetSource is a budget with where it stands: in a folder of its own, or in a contract.
type budgetSource struct {
	*writv1.Budget
	contract *writv1.Contract
	part     Part
	index    int
	path     string
}

func (b *builder) budgetSources() []budgetSource {
	var all []budgetSource
	for i, budget := range b.source.Budgets {
		all = append(all, budgetSource{Budget: budget, part: PartBudget, index: i})
	}
	for i, contract := range b.source.Contracts {
		for j, budget := range contract.GetBudgets() {
			all = append(all, budgetSource{Budget: budget, contract: contract, part: PartContract, index: i, path: fmt.Sprintf("budgets.%d", j)})
		}
	}
	return all
}

// budgets binds the budgets to their tools, in the order of their names.
func (b *builder) budgets() {
	all := b.budgetSources()
	for _, i := range inOrder(all) {
		source := all[i]
		wrong := func(format string, args ...any) {
			b.issues = append(b.issues, Issue{Part: source.part, Index: source.index, Path: source.path, Message: fmt.Sprintf(format, args...)})
		}
		budget := newBudget(source.Budget)
		budget.contract = source.contract.GetName()
		if b.bundle.budgets[budget.name] != nil && source.contract != nil {
			wrong("the name %s is taken by another budget", budget.name)
		}
		b.bundle.budgets[budget.name] = budget
		bound := 0
		for _, entry := range b.selected(source.GetTools()) {
			if source.contract != nil && !permits(source.contract, entry.tool.Name) {
				continue
			}
			bound++
			b.bindBudget(budget, entry, wrong)
		}
		if bound == 0 && source.contract != nil {
			wrong("none of the contract's tools is one of the budget's")
		}
	}
}

func permits(contract *writv1.Contract, tool string) bool {
	return slices.ContainsFunc(contract.GetTools(), func(t *writv1.ContractTool) bool { return t.GetTool() == tool })
}

// bindBudget lets a budget bear on a tool. A tool of which it is not known how much it
// takes is refused, and never counted as nothing.
func (b *builder) bindBudget(budget *budget, entry *entry, wrong func(format string, args ...any)) {
	if !entry.meter.known[budget.dimension] {
		wrong("nothing says how much %s takes of %s; give its rpc a cost, or a field of its request a budget", entry.tool.Name, budget.dimension)
	}
	entry.budgets = append(entry.budgets, budget)
	entry.alerting = entry.alerting || len(budget.alerts) > 0
	entry.shared = entry.shared || budget.shared != nil
	entry.contracted = entry.contracted || budget.contract != ""
	if len(entry.budgets) == mostBudgets+1 {
		wrong("more than %d budgets bear on %s", mostBudgets, entry.tool.Name)
	}
}

// sessionBudgets notes which tools' budgets ask for the session. That is no question of
// where values came from.
func (b *builder) sessionBudgets() {
	for _, entry := range b.bundle.entries {
		entry.uses.session = entry.uses.session || slices.ContainsFunc(entry.budgets, (*budget).ofSession)
	}
}

// inOrder returns the indexes of parts in the order of their names, so that the
// order of files and of entries in them means nothing.
func inOrder[P interface{ GetName() string }](parts []P) []int {
	order := make([]int, len(parts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(parts[a].GetName(), parts[b].GetName()) })
	return order
}
