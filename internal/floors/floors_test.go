// SPDX-License-Identifier: Apache-2.0

package floors_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/writ-dev/writ"
)

// floors are the rooms, from the top. A package belongs to the room with the
// longest matching name; rooms inside agent and tools have floors of their own.
var floors = [][]string{
	{"cmd", "examples", "internal"},
	{"envoy", "planner", "collector", "telemetry"},
	{"wire"},
	{"agent"},
	{"agent/bundles", "agent/upstream"},
	{"agent/policy", "agent/trace"},
	{"tools/command", "tools/wasm", "tools/web", "tools/rpc", "tools/database", "tools/mcp"},
	{"tools/egress"},
	{"tools", "ledger", "state"},
	{"tools/schemas"},
	{"sandbox"},
	{"proto"},
}

// extra are refusals beyond the floors: who, directly, may not import what.
var extra = []struct {
	who, not string
	except   []string
	why      string
}{
	{"", "github.com/envoyproxy/go-control-plane", []string{"envoy", "internal/bench", "internal/testenv"}, "only envoy speaks Envoy's protos; the benchmark's no-op server and the test's Envoy stand beside it"},
	{"", "database/sql", []string{"tools/database", "collector/store", "cmd", "examples"}, "state is a fold over the ledger; a database is the collector's store or a tool"},
	{"", "modernc.org/sqlite", []string{"tools/database", "collector/store", "cmd", "examples"}, "as database/sql"},
	{"", "github.com/tetratelabs/wazero", []string{"tools/wasm", "cmd"}, "a WebAssembly runtime is one executor's business"},
	{"", "github.com/landlock-lsm/go-landlock", []string{"sandbox"}, "isolation of a process is the sandbox's"},
	{"", "github.com/elastic/go-seccomp-bpf", []string{"sandbox"}, "as Landlock"},
	{"", "github.com/parquet-go/parquet-go", []string{"collector/export"}, "a columnar format is one export's business"},
	{"", "os/exec", []string{"sandbox", "cmd", "examples", "internal", "tools/command", "tools/mcp"}, "programs are started by the sandbox, and by what starts Envoy in tests"},
	{"", "github.com/transparency-dev/tessera", []string{"collector/heads"}, "the collector's own log is one room's; ledgers are not kept in it"},
	{"", "k8s.io/klog/v2", []string{"collector/heads"}, "what Tessera logs with, which that room sends into our log"},
	{"", "github.com/aws", []string{"ledger/vault/awskms", "internal/testenv"}, "a key service is one way to keep a vault's keys"},
	{"", "go.opentelemetry.io", []string{"telemetry", "agent/trace"}, "spans are made in one room; agent/trace names them, and is held against their reader"},
	{"agent", "go.opentelemetry.io/otel/sdk", nil, "the agent tells what happened and makes no span"},
	{"agent", "net/http", nil, "agent knows no transport"},
	{"agent", "google.golang.org/grpc", []string{"agent/upstream"}, "agent knows no transport"},
	{"ledger", module + "/proto/reasons", nil, "the ledger has sentinels of its own; the agent maps them to reasons"},
	{"sandbox", module, nil, "the sandbox knows no tool and no policy"},
}

// ofAgent is what the collector may see of agent: it keeps and tests bundles,
// and carries no call.
var ofAgent = []string{module + "/agent/bundles", module + "/agent/policy"}

// file is one Go file that is not a test.
type file struct {
	// dir is the package's directory from the root, name the file's path.
	dir, name string
	syntax    *ast.File
	positions *token.FileSet
}

// files parses every Go file of the tree that is not a test.
func files(t *testing.T) []file {
	t.Helper()
	var found []file
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() && name != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bin" || base == "run") {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		positions := token.NewFileSet()
		syntax, err := parser.ParseFile(positions, name, nil, parser.SkipObjectResolution)
		if err != nil {
			// A file that does not parse fails the build, where it is told better.
			return nil
		}
		from, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		from = filepath.ToSlash(from)
		found = append(found, file{dir: path.Dir(from), name: from, syntax: syntax, positions: positions})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no Go files found")
	}
	return found
}

func (f file) imports() []string {
	paths := make([]string, 0, len(f.syntax.Imports))
	for _, spec := range f.syntax.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, name)
		}
	}
	return paths
}

// within says whether a path is a prefix's or below it.
func within(name, prefix string) bool {
	return prefix == "" || name == prefix || strings.HasPrefix(name, prefix+"/")
}

// roomOf returns the room of a directory and the number of its floor, from the
// top; no room is the root package.
func roomOf(dir string) (string, int) {
	room, floor := "", -1
	for i, rooms := range floors {
		for _, name := range rooms {
			if within(dir, name) && len(name) > len(room) {
				room, floor = name, i
			}
		}
	}
	return room, floor
}

func TestImportsRunDownOnlyAndNeighboursDoNotMeet(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		from, above := roomOf(f.dir)
		if f.dir == "." || forTests(f.dir) {
			continue
		}
		if above < 0 {
			t.Errorf("%s: the directory %s is no room of the house; give it a floor in this test", f.name, f.dir)
			continue
		}
		for _, imported := range f.imports() {
			dir, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			to, below := roomOf(dir)
			switch {
			case to == from:
			case below < above:
				t.Errorf("%s: %s imports %s, which is on a floor above it", f.name, from, to)
			case below == above:
				t.Errorf("%s: %s imports its neighbour %s", f.name, from, to)
			}
		}
	}
}

func TestWhatOnlySomeRoomsMayImport(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if f.dir == "." {
			continue
		}
		for _, imported := range f.imports() {
			for _, rule := range extra {
				if !within(f.dir, rule.who) || !within(imported, rule.not) {
					continue
				}
				own := within(imported, module+"/"+rule.who) && rule.who != ""
				exempt := slices.ContainsFunc(rule.except, func(dir string) bool { return within(f.dir, dir) })
				if !own && !exempt {
					t.Errorf("%s imports %s: %s", f.name, imported, rule.why)
				}
			}
			if within(f.dir, "collector") && within(imported, module+"/agent") && !slices.Contains(ofAgent, imported) {
				t.Errorf("%s imports %s: the collector keeps bundles and carries no call", f.name, imported)
			}
		}
	}
}

// forTests says whether a package is there for tests: what only they may import,
// and what may import upwards as they do. Its name ends in "test".
func forTests(dir string) bool {
	return strings.HasSuffix(path.Base(dir), "test") || within(dir, "internal/testenv")
}

func TestOnlyTestsUseWhatIsThereForThem(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		if forTests(f.dir) {
			continue
		}
		for _, imported := range f.imports() {
			dir, ours := strings.CutPrefix(imported, module+"/")
			if imported == "testing" || ours && (forTests(dir) || dir == "internal/floors") {
				t.Errorf("%s imports %s, which is for tests", f.name, imported)
			}
		}
	}
}
