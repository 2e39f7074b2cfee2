// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is sent on needs the collector's program: make bench-ledger has it.
func TestEveryWayKeepsRecords(t *testing.T) {
	t.Parallel()
	sample, err := newSample(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if sample.frame < 1000 {
		t.Fatalf("the sample has %d bytes: it is no decision", sample.frame)
	}
	on := &bench{at: places{data: t.TempDir()}, sample: sample}
	for _, w := range ways {
		if strings.HasSuffix(w.name, "remote") {
			continue
		}
		if w.against != "" && !slices.ContainsFunc(ways, func(o way) bool { return o.name == w.against }) {
			t.Errorf("%s is held against %s, which there is not", w.name, w.against)
		}
		one, err := on.measure(t.Context(), w, ledgerSettings{Writers: 8, Rate: 500, Load: 50 * time.Millisecond})
		if err != nil || one.Rate <= 0 || one.CPU <= 0 || one.P50 <= 0 || one.P99 < one.P50 {
			t.Errorf("%s: %+v, %v", w.name, one, err)
		}
	}
}

func TestWhatIsTooSlowForARateSaysSo(t *testing.T) {
	t.Parallel()
	on := &bench{at: places{data: t.TempDir()}}
	w := way{name: "slow", title: "slow", open: func(context.Context, *bench, string) (keeper, error) { return slow{}, nil }}
	set := ledgerSettings{Writers: 2, Rate: 1000, Load: 100 * time.Millisecond}
	one, err := on.measure(t.Context(), w, set)
	if err != nil || one.PacedRate > 150 {
		t.Errorf("2 writers of 20 ms each: %+v, %v", one, err)
	}
	var out strings.Builder
	(&ledgerReport{Settings: set, Appends: []*appends{{way: w, Rounds: []kept{one}}}}).writeKept(&out)
	if !strings.Contains(out.String(), "slow did not hold 1000 records a second") {
		t.Errorf("the table does not say so:\n%s", out.String())
	}
}

// slow keeps a record in 20 ms.
type slow struct{}

func (slow) keep(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (slow) close() error { return nil }

func TestTheLedgersTablesSayWhichGoalIsMissed(t *testing.T) {
	t.Parallel()
	made := &ledgerReport{Parts: []*proof{{}, {}, {}, {Title: "verify", Took: []float64{4, 4}, Least: []float64{1, 1}}}}
	for _, w := range ways {
		k := kept{Rate: 1000, CPU: 4, P50: 10, P99: 20}
		if w.name == "process" {
			k.P50 = 70
		}
		made.Appends = append(made.Appends, &appends{Name: w.name, way: w, Rounds: []kept{k, k}})
	}
	text := made.markdown()
	for _, want := range []string{
		"| `process` paced, p50 against a raw write's | - | 6 | 7.0 [7.0, 7.0] | **no** |",
		"| `process` paced, p99 against a raw write's | - | 6 | 1.0 [1.0, 1.0] | yes |",
		"| `node` at load, records/s against raw group commit | 0.8 | - | 1.00 [1.00, 1.00] | yes |",
		"| verify, records/s of a core | 200000 | - | 250000 [250000, 250000] | yes |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in:\n%s", want, text)
		}
	}
}
