// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// Options says how a bundle is loaded. The zero value is right for most.
type Options struct {
	// Limits bounds what is read.
	Limits Limits
}

// Loaded is a bundle with what stands beside it in the directory.
type Loaded struct {
	// Bundle decides.
	Bundle *policy.Bundle
	// Suites are the bundle's own tests.
	Suites []Suite
	// Plays are the bundle's own scenarios.
	Plays []Play
	// Warnings are what somebody should look at, though it loads.
	Warnings []Problem
}

// Suite is a file of tests.
type Suite struct {
	// File is the path from the bundle's directory.
	File string
	// Tests are its cases.
	Tests []*writv1.TestCase
	// Lines has the line on which each case begins.
	Lines []int
}

// Play is a file of scenarios.
type Play struct {
	// File is the path from the bundle's directory.
	File string
	// Scenarios are what is played, each from the beginning.
	Scenarios []*writv1.Scenario
	// Lines has the line on which each scenario begins.
	Lines []int
}

// LoadDir loads the bundle in a directory. When something is wrong with it, the
// error is an [Errors] with every problem; a directory that cannot be opened is
// another error.
func LoadDir(ctx context.Context, dir string, options Options) (*policy.Bundle, error) {
	loaded, err := Load(ctx, dir, options)
	if err != nil {
		return nil, err
	}
	return loaded.Bundle, nil
}

// Load is [LoadDir] that also returns the bundle's tests and warnings.
func Load(ctx context.Context, dir string, options Options) (*Loaded, error) {
	files, problems, err := readDir(dir, options.Limits)
	if err != nil {
		return nil, err
	}
	l := &loader{files: files, problems: problems}
	bundle := l.load(ctx)
	if len(l.problems) > 0 {
		return nil, Errors(order(l.problems))
	}
	return &Loaded{Bundle: bundle, Suites: l.suites, Plays: l.plays, Warnings: order(l.warnings)}, nil
}

// loader is a bundle being loaded.
type loader struct {
	files    contents
	source   policy.Source
	suites   []Suite
	plays    []Play
	problems []Problem
	warnings []Problem

	// manifest and catalogue are their files, nil when they are not there.
	manifest, catalogue *document
	// grants and the rest tell where the parts of the source stand.
	grants, checks, approvals, budgets, limits, contracts, riskRules, riskBands []part
	// rpcs has the rpc of each tool.
	rpcs map[string]rpc
}

// part is where a grant, check or budget stands.
type part struct {
	document *document
	list     string
	index    int
}

// load goes as far as it can, so that one mistake does not hide another. Without
// tools that compile nothing else can be weighed.
func (l *loader) load(ctx context.Context) *policy.Bundle {
	l.source.Digest = l.files.digest()
	l.readManifest()
	l.readCatalogue()
	l.readParts()
	if !l.compileTools(ctx) {
		return nil
	}
	l.crossCheck()
	bundle, issues := policy.New(&l.source)
	for _, issue := range issues {
		problem := l.locate(issue)
		if issue.Severity == policy.Warning {
			l.warnings = append(l.warnings, problem)
			continue
		}
		l.problems = append(l.problems, problem)
	}
	return bundle
}

// read reads one YAML file of the bundle, or returns nil when it is not there.
func (l *loader) read(name string, message proto.Message) *document {
	text, ok := l.files[name]
	if !ok {
		return nil
	}
	d := readYAML(name, text, message)
	l.problems = append(l.problems, d.problems...)
	return d
}

func (l *loader) readManifest() {
	manifest := &writv1.BundleManifest{}
	l.manifest = l.read(manifestFile, manifest)
	l.source.Manifest = manifest
}

func (l *loader) readCatalogue() {
	catalogue := &writv1.Catalogue{}
	l.catalogue = l.read(catalogueFile, catalogue)
	l.source.Catalogue = catalogue
}

// readParts reads the files of the folders. A file with a problem gives no
// parts: what it would say is not known.
func (l *loader) readParts() {
	l.source.Grants, l.grants = readSets(l, "grants", (*writv1.GrantSet).GetGrants)
	l.source.Checks, l.checks = readSets(l, "checks", (*writv1.CheckSet).GetChecks)
	l.source.Approvals, l.approvals = readSets(l, "approvals", (*writv1.ApprovalSet).GetApprovals)
	l.source.Budgets, l.budgets = readSets(l, "budgets", (*writv1.BudgetSet).GetBudgets)
	l.source.Limits, l.limits = readSets(l, "limits", (*writv1.LimitSet).GetLimits)
	l.source.Contracts, l.contracts = readSets(l, "contracts", (*writv1.ContractSet).GetContracts)
	l.readRisk()
	for _, name := range l.files.names("scenarios") {
		if path.Ext(name) == linesEnding {
			l.readLines(name)
			continue
		}
		set := &writv1.ScenarioSet{}
		if d := l.read(name, set); len(d.problems) == 0 {
			l.plays = append(l.plays, playOf(d, set))
		}
	}
	for _, name := range l.files.names("tests") {
		set := &writv1.TestSuite{}
		if d := l.read(name, set); len(d.problems) == 0 {
			l.suites = append(l.suites, suiteOf(d, set))
		}
	}
}

// readSets reads the files of a folder, each a set whose list is named like the folder.
func readSets[S any, M interface {
	*S
	proto.Message
}, P any](l *loader, folder string, list func(M) []P) ([]P, []part) {
	var all []P
	var places []part
	for _, name := range l.files.names(folder) {
		set := M(new(S))
		d := l.read(name, set)
		if len(d.problems) > 0 {
			continue
		}
		for i := range list(set) {
			places = append(places, part{document: d, list: folder, index: i})
		}
		all = append(all, list(set)...)
	}
	return all, places
}

// readRisk reads the files of the folder risk, each a set of two lists.
func (l *loader) readRisk() {
	for _, name := range l.files.names("risk") {
		set := &writv1.RiskSet{}
		d := l.read(name, set)
		if len(d.problems) > 0 {
			continue
		}
		for i, rule := range set.GetRules() {
			l.source.RiskRules = append(l.source.RiskRules, rule)
			l.riskRules = append(l.riskRules, part{document: d, list: "rules", index: i})
		}
		for i, band := range set.GetBands() {
			l.source.RiskBands = append(l.source.RiskBands, band)
			l.riskBands = append(l.riskBands, part{document: d, list: "bands", index: i})
		}
	}
}

func suiteOf(d *document, set *writv1.TestSuite) Suite {
	suite := Suite{File: d.name, Tests: set.GetTests()}
	for i := range set.GetTests() {
		line := 0
		if node := item(d.root, "tests", i); node != nil {
			line = node.Line
		}
		suite.Lines = append(suite.Lines, line)
	}
	return suite
}

func playOf(d *document, set *writv1.ScenarioSet) Play {
	play := Play{File: d.name, Scenarios: set.GetScenarios()}
	for i := range set.GetScenarios() {
		line := 0
		if node := item(d.root, "scenarios", i); node != nil {
			line = node.Line
		}
		play.Lines = append(play.Lines, line)
		if play.Scenarios[i].GetPrincipal() == nil {
			play.Scenarios[i].Principal = set.GetPrincipal()
		}
	}
	return play
}

// compileTools compiles the protos and takes the tools from them.
func (l *loader) compileTools(ctx context.Context) bool {
	names := l.files.names(protoFolder)
	if len(names) == 0 {
		l.problems = append(l.problems, Problem{File: protoFolder, Message: "a bundle has at least one .proto file with a tool"})
		return false
	}
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], protoFolder+"/")
	}
	set, err := schemas.Compile(ctx, protos(l.files), names)
	if err != nil {
		l.protoProblems(err)
		return false
	}
	found, err := tools.Load(set)
	if err != nil {
		l.protoProblems(err)
		return false
	}
	l.source.Tools, l.source.Files = found, set.Files()
	l.contractTypes(set)
	l.rpcs = readRPCs(set.Files())
	return true
}

// contractTypes takes the messages that contracts name as their inputs and outputs. One
// that is not there is told where the contract is compiled.
func (l *loader) contractTypes(set *schemas.Set) {
	l.source.Types = make(map[string]*schemas.Message)
	for i, contract := range l.source.Contracts {
		for _, name := range []string{contract.GetInput(), contract.GetOutput()} {
			found, err := set.Files().FindDescriptorByName(protoreflect.FullName(name))
			descriptor, ok := found.(protoreflect.MessageDescriptor)
			if name == "" || err != nil || !ok || l.source.Types[name] != nil {
				continue
			}
			message, err := set.Message(descriptor)
			if err != nil {
				l.add(l.contracts[i].problem("%s cannot be used: %v", name, err))
				continue
			}
			l.source.Types[name] = message
		}
	}
}

var protoPlace = regexp.MustCompile(`^(?:proto: )?([^:\s]+\.proto):(?:(\d+):(\d+): ?)?(.*)$`)

// protoProblems notes the errors of the compiler: one a line or one an error,
// each as file:line:column: message.
func (l *loader) protoProblems(err error) {
	all := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		all = joined.Unwrap()
	}
	for _, one := range all {
		for line := range strings.SplitSeq(one.Error(), "\n") {
			if line = strings.TrimSpace(line); line != "" {
				l.problems = append(l.problems, protoProblem(line))
			}
		}
	}
}

func protoProblem(line string) Problem {
	found := protoPlace.FindStringSubmatch(line)
	if found == nil {
		return Problem{File: protoFolder, Message: line}
	}
	problem := Problem{File: protoFolder + "/" + found[1], Message: strings.TrimSpace(found[4])}
	problem.Line, _ = strconv.Atoi(found[2])
	problem.Column, _ = strconv.Atoi(found[3])
	return problem
}

// locate returns an issue of the compiled bundle as a problem of a file.
func (l *loader) locate(issue policy.Issue) Problem {
	switch issue.Part {
	case policy.PartGrant:
		return at(l.grants, issue, "condition")
	case policy.PartCheck:
		return at(l.checks, issue, "expression")
	case policy.PartBudget:
		return at(l.budgets, issue, "")
	case policy.PartApproval:
		return at(l.approvals, issue, "condition")
	case policy.PartRiskRule:
		return at(l.riskRules, issue, "condition")
	case policy.PartRiskBand:
		return at(l.riskBands, issue, "")
	case policy.PartLimit:
		return at(l.limits, issue, "")
	case policy.PartContract:
		return at(l.contracts, issue, issue.Path)
	}
	if issue.Index < len(l.source.Tools) {
		return l.toolPlace(l.source.Tools[issue.Index]).with("%s", issue.Message)
	}
	return Problem{File: protoFolder, Message: issue.Message}
}

// at returns an issue with a part as a problem, at the place in the part's
// expression where it names one.
func at(parts []part, issue policy.Issue, expression string) Problem {
	if issue.Index >= len(parts) {
		return Problem{File: manifestFile, Message: issue.Message}
	}
	p := parts[issue.Index]
	problem := p.problem("%s", issue.Message)
	node := descend(item(p.document.root, p.list, p.index), expression)
	switch {
	case node == nil:
	case issue.Line > 0:
		problem.Line, problem.Column = p.document.place(node, issue.Line, issue.Column)
	case issue.Path != "":
		problem.Line, problem.Column = node.Line, node.Column
	}
	return problem
}

// problem returns a problem with the part as a whole.
func (p part) problem(format string, args ...any) Problem {
	problem := Problem{File: p.document.name, Message: fmt.Sprintf(format, args...)}
	if node := item(p.document.root, p.list, p.index); node != nil {
		problem.Line, problem.Column = node.Line, node.Column
	}
	return problem
}

// within returns a problem with an entry of one of the part's lists.
func (p part) within(list string, index int, format string, args ...any) Problem {
	problem := p.problem(format, args...)
	if node := item(item(p.document.root, p.list, p.index), list, index); node != nil {
		problem.Line, problem.Column = node.Line, node.Column
	}
	return problem
}

// with returns a problem at the same place with another message.
func (p Problem) with(format string, args ...any) Problem {
	p.Message = fmt.Sprintf(format, args...)
	return p
}
