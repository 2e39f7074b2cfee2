// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func count(n int) []float64 {
	values := make([]float64, n)
	for i := range values {
		values[n-1-i] = float64(i + 1)
	}
	return values
}

// The ranks and coverages are those of the tables of Conover and of Hahn and Meeker.
func TestIntervalsLieBetweenTheOrderStatisticsOfTheTables(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		n                 int
		median, low, high float64
		coverage          float64
	}{
		{"none", 0, 0, 0, 0, 0},
		{"one value is all there is", 1, 1, 1, 1, 0},
		{"five are too few for 95%", 5, 3, 1, 5, 0.9375},
		{"six reach it with all", 6, 3.5, 1, 6, 0.96875},
		{"nine", 9, 5, 2, 8, 0.9609},
		{"twelve", 12, 6.5, 3, 10, 0.9614},
		{"twenty", 20, 10.5, 6, 15, 0.9586},
		{"a hundred", 100, 50.5, 40, 61, 0.9648},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := intervalOf(count(test.n))
			want := interval{Median: test.median, Low: test.low, High: test.high}
			coverage := got.Coverage
			got.Coverage = 0
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("of %d values (-want +got):\n%s", test.n, diff)
			}
			if math.Abs(coverage-test.coverage) > 0.0001 {
				t.Errorf("coverage %.4f, want %.4f", coverage, test.coverage)
			}
		})
	}
}

func TestTheCPUClockRunsWithWhatAProcessDoes(t *testing.T) {
	t.Parallel()
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 30*time.Millisecond; {
		runtime.Gosched()
	}
	after, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used < time.Millisecond || used > time.Minute {
		t.Errorf("%s of CPU in 30 ms of work", used)
	}
	if bytes, err := peakMemory(os.Getpid()); err != nil || bytes < 1<<20 {
		t.Errorf("peak memory %d, %v", bytes, err)
	}
	if _, err := cpuTime(1 << 22); err == nil {
		t.Error("a process that does not exist has a clock")
	}
}

func TestBenchmarksAreReadWithTheirRuns(t *testing.T) {
	t.Parallel()
	parts, err := readParts("./agent/policy", []byte(strings.ReplaceAll(`goos: linux
BenchmarkDecide/one_tool/10-P   	  1000	      2000 ns/op	     300 B/op	       7 allocs/op
BenchmarkDecide/one_tool/10-P   	  1000	      4000 ns/op	     300 B/op	       7 allocs/op
BenchmarkDecide/one_tool/10000-P	  1000	      2200 ns/op	     300 B/op	       7 allocs/op
BenchmarkDecide/one_tool/10000-P	  1000	      4800 ns/op	     300 B/op	       7 allocs/op
PASS
ok  	example	1.2s
`, "-P", suffix())))
	if err != nil {
		t.Fatal(err)
	}
	want := []*part{
		{Package: "agent/policy", Name: "Decide/one tool/10", Nanoseconds: []float64{2000, 4000}, Bytes: 300, Allocations: 7},
		{Package: "agent/policy", Name: "Decide/one tool/10000", Nanoseconds: []float64{2200, 4800}, Bytes: 300, Allocations: 7},
	}
	if diff := cmp.Diff(want, parts); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	ratios := grantRatios(parts)
	if len(ratios) != 1 || ratios[0].Layout != "Decide/one tool" || math.Abs(ratios[0].Ratio.Median-1.15) > 1e-9 {
		t.Errorf("ratios %+v, want one of 1.15", ratios)
	}
	if _, err := readParts("./agent", []byte("ok  	example	0.1s\n")); err == nil {
		t.Error("no benchmark is no error")
	}
}

func suffix() string {
	if runtime.GOMAXPROCS(0) == 1 {
		return ""
	}
	return fmt.Sprintf("-%d", runtime.GOMAXPROCS(0))
}

func TestRatiosAreThoseWithinRounds(t *testing.T) {
	t.Parallel()
	noop := &result{row: row{name: "noop"}, samples: []sample{{ServerCPU: 1, P50: 10}, {ServerCPU: 10, P50: 1}, {ServerCPU: 100, P50: 5}}}
	writ := &result{row: row{name: "writ", against: "noop"}, samples: []sample{{ServerCPU: 2, P50: 10}, {ServerCPU: 15, P50: 2}, {ServerCPU: 100, P50: 20}}}
	got := newReport(about{}, settings{Rounds: 3, Rate: 1000}, []*result{noop, writ})
	if len(got.Ratios) != 1 || got.Ratios[0].Row != "writ" || got.Ratios[0].Against != "noop" {
		t.Fatalf("ratios %+v", got.Ratios)
	}
	cpu, p50 := got.Ratios[0].Ratios["server_cpu_closed"], got.Ratios[0].Ratios["p50_milliseconds"]
	if cpu.Median != 1.5 || cpu.Low != 1 || cpu.High != 2 || p50.Median != 2 {
		t.Errorf("CPU %v, p50 %v", cpu, p50)
	}
}

func TestResultsGoBetweenTheMarksOfADocument(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := writeDoc(file, "| new |\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("before\n"+beginMark+"\n\n| new |\n\n"+endMark+"\nafter\n", string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.WriteFile(file, []byte("no marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeDoc(file, "new"); err == nil {
		t.Error("a document without marks is no error")
	}
}
