// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

var update = flag.Bool("update", false, "rewrite what the golden cases want")

// golden is a case in testdata/<stage>/<what it shows>.yaml.
type golden struct {
	path     string
	file     map[string]yaml.Node
	bundle   *policy.Bundle
	call     *policy.Call
	facts    *writv1.Facts
	want     string
	template string
}

// goldens reads every case. Cases name a bundle of testdata/bundles.
func goldens(t testing.TB) []*golden {
	t.Helper()
	paths, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	slices.Sort(paths)
	loaded := map[string]*policy.Bundle{}
	var cases []*golden
	for _, path := range paths {
		g := read(t, path)
		name := text(g.file["bundle"])
		if loaded[name] == nil {
			bundle, err := bundles.LoadDir(t.Context(), filepath.Join("testdata/bundles", name), bundles.Options{})
			if err != nil {
				t.Fatal(err)
			}
			loaded[name] = bundle
		}
		g.bundle = loaded[name]
		cases = append(cases, g)
	}
	return cases
}

func text(node yaml.Node) string { return node.Value }

func read(t testing.TB, path string) *golden {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{path: path}
	if err := yaml.Unmarshal(data, &g.file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	g.want = text(g.file["want"])
	g.template, _, _ = strings.Cut(string(data), "\nwant:")
	principal, envelope := &writv1.Principal{}, &writv1.Envelope{}
	g.facts = bundles.DefaultFacts(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	if g.part(t, "facts", &writv1.Facts{}) {
		g.facts = &writv1.Facts{}
		g.part(t, "facts", g.facts)
	}
	g.part(t, "principal", principal)
	g.part(t, "envelope", envelope)
	g.call = bundles.CallOf(principal, envelope)
	g.call.Upstream = text(g.file["upstream"])
	var limits struct{ Bytes, Depth, Values int }
	if node, ok := g.file["limits"]; ok {
		if err := node.Decode(&limits); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	g.call.Limits = schemas.Limits(limits)
	return g
}

// part reads a part of a case into its message, and tells whether it is there.
func (g *golden) part(t testing.TB, name string, message proto.Message) bool {
	t.Helper()
	node, ok := g.file[name]
	if !ok {
		return false
	}
	data, err := yaml.Marshal(&node)
	if err != nil {
		t.Fatalf("%s: %v", g.path, err)
	}
	if err := bundles.ReadYAML(g.path, data, message); err != nil {
		t.Fatal(err)
	}
	return true
}

// decide returns the canonical bytes of the case's decision, and the explanation.
func (g *golden) decide(t testing.TB) ([]byte, string) {
	t.Helper()
	result := policy.Decide(g.bundle, g.call, g.facts)
	encoded, err := canonical.Marshal(result.Decision)
	if err != nil {
		t.Fatalf("%s: %v", g.path, err)
	}
	var explanation bytes.Buffer
	if err := policy.Explain(&explanation, result); err != nil {
		t.Fatal(err)
	}
	return append(encoded, result.Canonical...), explanation.String()
}

func TestGoldenCasesGetTheDecisionTheyShow(t *testing.T) {
	t.Parallel()
	for _, g := range goldens(t) {
		name := strings.TrimSuffix(strings.TrimPrefix(g.path, "testdata/"), ".yaml")
		t.Run(strings.ReplaceAll(name, "-", " "), func(t *testing.T) {
			_, got := g.decide(t)
			if *update {
				g.rewrite(t, got)
				return
			}
			if diff := cmp.Diff(g.want, got); diff != "" {
				t.Errorf("%s: the decision (-want +got):\n%s", g.path, diff)
			}
		})
	}
}

func (g *golden) rewrite(t *testing.T, got string) {
	t.Helper()
	var out strings.Builder
	out.WriteString(g.template + "\nwant: |\n")
	for line := range strings.Lines(got) {
		if strings.TrimSpace(line) != "" {
			out.WriteString("  ")
		}
		out.WriteString(line)
	}
	if err := os.WriteFile(g.path, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestADecisionIsTheSameBytesAHundredTimes(t *testing.T) {
	t.Parallel()
	again := goldens(t)
	for i, g := range goldens(t) {
		first, _ := g.decide(t)
		for range 50 {
			if same, _ := g.decide(t); !bytes.Equal(first, same) {
				t.Fatalf("%s: two decisions differ", g.path)
			}
			if loadedAgain, _ := again[i].decide(t); !bytes.Equal(first, loadedAgain) {
				t.Fatalf("%s: decisions differ between two loads of the bundle", g.path)
			}
		}
	}
}

// digestVariable asks a process of this test for the digest of all decisions.
const digestVariable = "WRIT_POLICY_PRINT_DIGEST"

// digest is over the decisions of all golden cases.
func digest(t testing.TB) string {
	t.Helper()
	sum := sha256.New()
	for _, g := range goldens(t) {
		encoded, _ := g.decide(t)
		fmt.Fprintf(sum, "%s %x\n", g.path, encoded)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func TestPrintTheDigestWhereItIsAskedFor(t *testing.T) {
	if os.Getenv(digestVariable) == "" {
		return // It is for the processes that TestAnotherProcessAndA32BitBuildDecideTheSame starts.
	}
	fmt.Printf("digest=%s\n", digest(t))
}

func TestAnotherProcessAndA32BitBuildDecideTheSame(t *testing.T) {
	t.Parallel()
	if os.Getenv(digestVariable) != "" {
		return // This is a process that the test itself started.
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := digest(t)
	if got := digestOf(t, self); got != want {
		t.Errorf("another process decides otherwise: digest %s, want %s", got, want)
	}
	narrow := filepath.Join(t.TempDir(), "policy386.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", narrow, ".")
	build.Env = append(os.Environ(), "GOARCH=386", "GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building for 386: %v\n%s", err, out)
	}
	if got := digestOf(t, narrow); got != want {
		t.Errorf("a 32-bit build decides otherwise: digest %s, want %s", got, want)
	}
}

func digestOf(t *testing.T, program string) string {
	t.Helper()
	run := exec.CommandContext(t.Context(), program, "-test.run", "^TestPrintTheDigestWhereItIsAskedFor$", "-test.v")
	run.Env = append(os.Environ(), digestVariable+"=1")
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("running %s: %v\n%s", program, err, out)
	}
	_, rest, found := strings.Cut(string(out), "digest=")
	if !found {
		t.Fatalf("%s printed no digest:\n%s", program, out)
	}
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func TestManyDecideUnderOneBundleAtOnce(t *testing.T) {
	t.Parallel()
	cases := goldens(t)
	want := make([][]byte, len(cases))
	for i, g := range cases {
		want[i], _ = g.decide(t)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i, g := range cases {
				if got, _ := g.decide(t); !bytes.Equal(want[i], got) {
					t.Errorf("%s: a decision differs beside others", g.path)
				}
			}
		})
	}
	group.Wait()
}
