// SPDX-License-Identifier: Apache-2.0

package floors_test

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// mayDecide is everything that agent/policy may import: what computes. There is
// no operating system in it, no network, no lock, no clock to be read, no chance.
var mayDecide = []string{
	// Ours: the contract, the refusals, what a tool is, the types of state.
	module + "/proto", module + "/tools", module + "/tools/schemas", module + "/state", module + "/agent/policy/order",
	// Conditions, rules and messages.
	"cel.dev/cel-go", "buf.build/go/protovalidate", "buf.build/gen/go/bufbuild/protovalidate", "google.golang.org/protobuf",
	// Go's own, as far as it is pure.
	"bytes", "cmp", "crypto/sha256", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "io", "maps", "math", "reflect", "slices", "sort", "strconv", "strings", "time", "unicode",
}

// mayNotDecide are paths below those of mayDecide that are not pure.
var mayNotDecide = []string{"math/rand", "io/ioutil"}

// executors are below tools, and none of a decision's business.
var executors = []string{"command", "wasm", "web", "rpc", "database", "mcp", "egress"}

// clock are the functions of package time that read the clock or wait for it.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "LoadLocation", "Local"}

func TestPolicyImportsOnlyWhatComputes(t *testing.T) {
	t.Parallel()
	seen := false
	for _, f := range files(t) {
		if !within(f.dir, "agent/policy") {
			continue
		}
		seen = true
		for _, imported := range f.imports() {
			allowed := slices.ContainsFunc(mayDecide, func(p string) bool { return within(imported, p) })
			refused := slices.ContainsFunc(mayNotDecide, func(p string) bool { return within(imported, p) })
			executor := slices.ContainsFunc(executors, func(p string) bool { return within(imported, module+"/tools/"+p) })
			if !allowed || refused || executor {
				t.Errorf("%s imports %s: a decision is a function of bundle, call and facts", f.name, imported)
			}
		}
	}
	if !seen {
		t.Error("agent/policy has no file: nothing was looked at")
	}
}

func TestPolicyReadsNoClockAndStartsNothing(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if !within(f.dir, "agent/policy") && !within(f.dir, "state") {
			continue
		}
		ast.Inspect(f.syntax, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.SelectorExpr:
				if from, ok := n.X.(*ast.Ident); ok && from.Name == "time" && slices.Contains(clock, n.Sel.Name) {
					t.Errorf("%s: time.%s: the clock is a parameter", f.positions.Position(n.Pos()), n.Sel.Name)
				}
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt:
				t.Errorf("%s: a decision runs alone", f.positions.Position(n.Pos()))
			case *ast.ImportSpec:
				if n.Name != nil && strings.Trim(n.Path.Value, `"`) == "time" {
					t.Errorf("%s: package time goes by its own name here", f.positions.Position(n.Pos()))
				}
			}
			return true
		})
	}
}
