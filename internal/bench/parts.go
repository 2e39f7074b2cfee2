// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// packages are those whose benchmarks are the parts of a call, in the order of its
// life, with what of them is run.
var packages = []struct{ path, benchmarks string }{
	{"./internal/bench", "Check"},
	{"./envoy/extauthz", "."},
	{"./wire", "."},
	{"./tools/schemas", "Read$|Validate|Append"},
	{"./agent/policy", "Decide"},
	{"./ledger", "Append/.*PROCESS"},
}

// How often and how long each benchmark runs, and with what pace of the garbage
// collector: the agent's own.
const (
	partCount = 9
	partTime  = "100ms"
	partPace  = "GOGC=400"
)

// part is a Go benchmark.
type part struct {
	Package string `json:"package"`
	Name    string `json:"name"`
	// Nanoseconds are an operation's, one for each run.
	Nanoseconds []float64 `json:"nanoseconds"`
	Bytes       float64   `json:"bytes"`
	Allocations float64   `json:"allocations"`
}

// partsCommand is the command that measures a package's parts, as one types it.
func partsCommand(path, benchmarks string) string {
	return fmt.Sprintf(partPace+" go test -run='^$' -bench='%s' -benchmem -benchtime=%s -count=%d %s", benchmarks, partTime, partCount, path)
}

// measureParts runs the parts' benchmarks. It builds each package's once and runs all
// of them in each round: "go test -count" would run each by itself, and what is
// compared would not meet the same machine.
func measureParts(ctx context.Context, dir string, progress io.Writer) ([]*part, error) {
	var all []*part
	for _, p := range packages {
		fmt.Fprintf(progress, "bench: %s\n", partsCommand(p.path, p.benchmarks))
		program := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(p.path, "./"), "/", "-")+".test")
		if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, p.path).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the benchmarks of %s: %w\n%s", p.path, err, out)
		}
		var text []byte
		for range partCount {
			command := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench="+p.benchmarks, "-test.benchmem", "-test.benchtime="+partTime)
			command.Dir, command.Env = p.path, append(os.Environ(), partPace)
			out, err := command.CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("run the benchmarks of %s: %w\n%s", p.path, err, out)
			}
			text = append(text, out...)
		}
		parts, err := readParts(p.path, text)
		if err != nil {
			return nil, fmt.Errorf("read the benchmarks of %s: %w", p.path, err)
		}
		all = append(all, parts...)
	}
	return all, nil
}

// readParts reads what "go test -bench" prints (go.dev/design/14313-benchmark-format).
func readParts(pkg string, out []byte) ([]*part, error) {
	var parts []*part
	byName := make(map[string]*part)
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || len(fields)%2 != 0 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(fields[0], "Benchmark"), fmt.Sprintf("-%d", runtime.GOMAXPROCS(0)))
		p := byName[name]
		if p == nil {
			p = &part{Package: strings.TrimPrefix(pkg, "./"), Name: strings.ReplaceAll(name, "_", " ")}
			byName[name] = p
			parts = append(parts, p)
		}
		if err := p.add(fields[2:]); err != nil {
			return nil, fmt.Errorf("read %q: %w", lines.Text(), err)
		}
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("no benchmark ran:\n%s", out)
	}
	return parts, lines.Err()
}

// add adds the pairs of value and unit of one run.
func (p *part) add(pairs []string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		value, err := strconv.ParseFloat(pairs[i], 64)
		if err != nil {
			return err
		}
		switch pairs[i+1] {
		case "ns/op":
			p.Nanoseconds = append(p.Nanoseconds, value)
		case "B/op":
			p.Bytes = value
		case "allocs/op":
			p.Allocations = value
		}
	}
	return nil
}

// few and many are the numbers of grants that decisions are compared under.
const few, many = "/10", "/10000"

// grantRatio says what a decision under many grants costs against one under few.
type grantRatio struct {
	Layout string `json:"layout"`
	// Few and Many are nanoseconds under few and under many grants.
	Few   float64  `json:"few_nanoseconds"`
	Many  float64  `json:"many_nanoseconds"`
	Ratio interval `json:"ratio"`
}

// grantRatios finds the pairs of benchmarks that differ by the number of grants.
func grantRatios(parts []*part) []grantRatio {
	var ratios []grantRatio
	for _, p := range parts {
		layout, found := strings.CutSuffix(p.Name, many)
		if !found {
			continue
		}
		for _, q := range parts {
			if q.Package != p.Package || q.Name != layout+few {
				continue
			}
			ratios = append(ratios, grantRatio{
				Layout: layout, Few: intervalOf(q.Nanoseconds).Median, Many: intervalOf(p.Nanoseconds).Median,
				Ratio: intervalOf(quotients(p.Nanoseconds, q.Nanoseconds)),
			})
		}
	}
	return ratios
}

// quotients divides pair by pair what was measured in one round.
func quotients(values, by []float64) []float64 {
	var out []float64
	for i := range min(len(values), len(by)) {
		if by[i] > 0 {
			out = append(out, values[i]/by[i])
		}
	}
	return out
}
