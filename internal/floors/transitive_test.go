// SPDX-License-Identifier: Apache-2.0

package floors_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// transitive says what a package may not depend on, by whatever way.
var transitive = []struct {
	// who are the packages by directory; not is what they do without.
	who, not []string
	why      string
}{
	{[]string{"agent", "tools", "ledger", "state", "sandbox", "wire", "proto", "planner"}, []string{"modernc.org/sqlite", "database/sql"}, "a database driver is the collector's, or one tool's"},
	{[]string{"agent", "tools", "ledger", "state", "sandbox", "wire", "proto", "planner", "collector"}, []string{"github.com/envoyproxy/go-control-plane"}, "only envoy speaks Envoy's protos"},
	{[]string{"agent", "ledger", "state", "sandbox", "wire", "proto", "planner", "collector", "envoy"}, []string{"github.com/tetratelabs/wazero"}, "a WebAssembly runtime is one executor's business"},
	{[]string{"agent", "tools", "ledger", "state", "sandbox", "wire", "proto", "planner", "envoy"}, []string{"github.com/parquet-go/parquet-go"}, "a columnar format is one export's business"},
	{[]string{"agent", "tools", "ledger", "state", "sandbox", "wire", "proto", "planner", "envoy"}, []string{"github.com/transparency-dev/tessera", "k8s.io/klog/v2"}, "the collector's own log is the collector's"},
	{[]string{"agent", "tools", "ledger/originals", "ledger/stream", "ledger/token", "state", "sandbox", "wire", "proto", "planner", "collector", "envoy"}, []string{"github.com/aws", "github.com/writ-dev/writ/ledger/vault"}, "who seals has no vault, and calls no key service"},
	{[]string{"agent", "tools", "ledger", "state", "sandbox", "wire", "proto", "planner", "collector"}, []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters"}, "making and sending spans is the business of telemetry alone, which only cmd imports"},
	{[]string{"agent/policy", "state"}, []string{"os/exec", "net/rpc", "plugin"}, "deciding and folding start nothing (the contract's own services bring gRPC, which neither touches)"},
}

// exceptions may depend on what their floor may not.
var exceptions = []string{"tools/database", "tools/wasm"}

// listed is a package as go list prints it.
type listed struct {
	ImportPath string
	Deps       []string
}

func TestWhatProgramsDependOnByWhateverWay(t *testing.T) {
	t.Parallel()
	list := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Deps", "./...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		dir := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if dir != "" && !slices.Contains(exceptions, dir) {
			p.judge(t, dir)
		}
	}
}

func (p listed) judge(t *testing.T, dir string) {
	t.Helper()
	for _, rule := range transitive {
		if !slices.ContainsFunc(rule.who, func(who string) bool { return within(dir, who) }) {
			continue
		}
		for _, dep := range p.Deps {
			if slices.ContainsFunc(rule.not, func(not string) bool { return within(dep, not) }) {
				t.Errorf("%s depends on %s: %s", dir, dep, rule.why)
			}
		}
	}
}
