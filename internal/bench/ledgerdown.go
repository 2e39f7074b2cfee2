// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// ledgerReport is what was measured of the ledger, as JSON tells it.
type ledgerReport struct {
	About       about          `json:"about"`
	Settings    ledgerSettings `json:"settings"`
	RecordBytes int            `json:"record_bytes"`
	LoadBefore  float64        `json:"load_average_before"`
	LoadAfter   float64        `json:"load_average_after"`
	Appends     []*appends     `json:"appends"`
	Parts       []*proof       `json:"proofs"`
	Replays     []float64      `json:"replayed_records_per_core_minute,omitempty"`
	Starts      *starts        `json:"starts,omitempty"`
}

// keptMetric is one number of a round.
type keptMetric struct {
	title, format string
	of            func(kept) float64
}

// keptMetrics are the numbers of a round.
var keptMetrics = []keptMetric{
	{"records/s", "%.0f", func(k kept) float64 { return k.Rate }},
	{"CPU µs a record", "%.2f", func(k kept) float64 { return k.CPU }},
	{allocationsTitle, "%.1f", func(k kept) float64 { return k.Allocations }},
	{"paced p50 µs", "%.0f", func(k kept) float64 { return k.P50 }},
	{"paced p99 µs", "%.0f", func(k kept) float64 { return k.P99 }},
	{"paced CPU µs a record", "%.0f", func(k kept) float64 { return k.PacedCPU }},
}

// allocationsTitle is of what has no ratio: the raw rows allocate nothing.
const allocationsTitle = "allocations a record"

// ratioMetrics are the numbers of a round that are held against another's.
var ratioMetrics = slices.DeleteFunc(slices.Clone(keptMetrics), func(m keptMetric) bool {
	return m.title == allocationsTitle
})

// goal is one that the ledger has set itself.
type goal struct {
	title string
	// holds is how far the measure is above what it must be; below 1 it is missed.
	measure func(*ledgerReport) interval
	format  string
	atLeast float64
	atMost  float64
}

var goals = []goal{
	{title: "`process` paced, p50 against a raw write's", format: "%.1f", atMost: 6, measure: ratioOfWays("process", "raw-write", func(k kept) float64 { return k.P50 })},
	{title: "`process` paced, p99 against a raw write's", format: "%.1f", atMost: 6, measure: ratioOfWays("process", "raw-write", func(k kept) float64 { return k.P99 })},
	{title: "`process` at load, CPU µs a record", format: "%.2f", atMost: 5, measure: ratioOfWays("process", "", func(k kept) float64 { return k.CPU })},
	{title: "`node` at load, records/s against raw group commit", format: "%.2f", atLeast: 0.8, measure: ratioOfWays("node", "raw-group-sync", func(k kept) float64 { return k.Rate })},
	{title: "verify, records/s of a core", format: "%.0f", atLeast: 200_000, measure: func(r *ledgerReport) interval { return perSecond(r.Parts[3].Took) }},
	{title: "recovery of the large ledger with the agent's state, s", format: "%.1f", atMost: 5, measure: func(r *ledgerReport) interval {
		if r.Starts == nil {
			return interval{}
		}
		return intervalOf(r.Starts.Ways[1].Took)
	}},
}

func ratioOfWays(name, against string, of func(kept) float64) func(*ledgerReport) interval {
	return func(r *ledgerReport) interval {
		own := r.way(name).all(of)
		if against == "" {
			return intervalOf(own)
		}
		return intervalOf(quotients(own, r.way(against).all(of)))
	}
}

func (r *ledgerReport) way(name string) *appends {
	return r.Appends[slices.IndexFunc(r.Appends, func(a *appends) bool { return a.Name == name })]
}

func (a *appends) all(of func(kept) float64) []float64 {
	values := make([]float64, len(a.Rounds))
	for i, k := range a.Rounds {
		values[i] = of(k)
	}
	return values
}

// perSecond turns microseconds of one into how many there are in a second.
func perSecond(micros []float64) interval {
	rates := make([]float64, len(micros))
	for i, m := range micros {
		rates[i] = 1e6 / m
	}
	return intervalOf(rates)
}

// markdown tells what was measured in tables.
func (r *ledgerReport) markdown() string {
	var out strings.Builder
	a, set := r.About, r.Settings
	fmt.Fprintf(&out, "Measured on %s: %s, %d cores, %.0f GiB, Linux %s, ledger on %s; %s.\n", a.Time.Format("2006-01-02"), a.CPU, a.Cores, float64(a.Memory)/(1<<30), a.Kernel, a.FileSystem, a.Writ)
	fmt.Fprintf(&out, "%d interleaved rounds; in each, each row has %s of %d writers in a closed loop and %s of %d records a second. A record has %d bytes in its segment.\n",
		set.Rounds, set.Load, set.Writers, set.Load, set.Rate, r.RecordBytes)
	fmt.Fprintf(&out, "The machine's load average was %.1f when it began and %.1f when it ended; one above its cores is others' too.\n\n", r.LoadBefore, r.LoadAfter)
	r.writeGoals(&out)
	r.writeAppends(&out)
	r.writeProofs(&out)
	r.writeStarts(&out)
	return out.String()
}

func (r *ledgerReport) writeGoals(out *strings.Builder) {
	fmt.Fprintf(out, "### Goals\n\nMedians over the rounds%s.\n\n| goal | at least | at most | measured | met |\n| --- | --- | --- | --- | --- |\n", coverage(goals[0].measure(r)))
	for _, g := range goals {
		found := g.measure(r)
		if found.Median == 0 {
			continue
		}
		least, most, met := "-", "-", "yes"
		if g.atLeast > 0 {
			least = fmt.Sprintf("%g", g.atLeast)
		}
		if g.atMost > 0 {
			most = fmt.Sprintf("%g", g.atMost)
		}
		if g.atLeast > 0 && found.Median < g.atLeast || g.atMost > 0 && found.Median > g.atMost {
			met = "**no**"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", g.title, least, most, spread(g.format, found), met)
	}
	out.WriteByte('\n')
}

// spread prints an interval.
func spread(format string, i interval) string {
	return fmt.Sprintf(format+" ["+format+", "+format+"]", i.Median, i.Low, i.High)
}

func (r *ledgerReport) writeAppends(out *strings.Builder) {
	r.writeKept(out)
	r.writeKeptRatios(out)
}

func (r *ledgerReport) writeKept(out *strings.Builder) {
	out.WriteString("### Append\n\nMedians of the rounds; CPU is that of the process that appends, its writers included.\n\n| row |")
	for _, m := range keptMetrics {
		fmt.Fprintf(out, " %s |", m.title)
	}
	out.WriteString("\n| --- |" + strings.Repeat(" --- |", len(keptMetrics)) + "\n")
	for _, a := range r.Appends {
		fmt.Fprintf(out, "| %s |", a.way.title)
		for _, m := range keptMetrics {
			fmt.Fprintf(out, " "+m.format+" |", intervalOf(a.all(m.of)).Median)
		}
		out.WriteByte('\n')
	}
	for _, a := range r.Appends {
		if held := intervalOf(a.all(func(k kept) float64 { return k.PacedRate })).Median; held < 0.98*float64(r.Settings.Rate) {
			fmt.Fprintf(out, "\n%s did not hold %d records a second: %.0f were kept.\n", a.way.title, r.Settings.Rate, held)
		}
	}
}

func (r *ledgerReport) writeKeptRatios(out *strings.Builder) {
	fmt.Fprintf(out, "\nRatios within rounds%s.\n\n| row | against |", coverage(goals[0].measure(r)))
	for _, m := range ratioMetrics {
		fmt.Fprintf(out, " %s |", m.title)
	}
	out.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(ratioMetrics)) + "\n")
	for _, a := range r.Appends {
		if a.way.against == "" {
			continue
		}
		other := r.way(a.way.against)
		fmt.Fprintf(out, "| %s | %s |", a.way.title, other.way.title)
		for _, m := range ratioMetrics {
			fmt.Fprintf(out, " %s |", intervalOf(quotients(a.all(m.of), other.all(m.of))))
		}
		out.WriteByte('\n')
	}
	out.WriteByte('\n')
}

func (r *ledgerReport) writeProofs(out *strings.Builder) {
	out.WriteString("### Proofs\n\nMicroseconds of CPU, medians of the rounds.\n\n| what | µs | a second of a core | raw counterpart | µs | ratio | on |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, p := range r.Parts {
		fmt.Fprintf(out, "| %s | %.2f | %.0f | %s | %.2f | %s | %s |\n", p.Title, intervalOf(p.Took).Median, perSecond(p.Took).Median,
			p.Raw, intervalOf(p.Least).Median, intervalOf(quotients(p.Took, p.Least)), p.Note)
	}
	if len(r.Replays) > 0 {
		fmt.Fprintf(out, "\nReplay: %s recorded decisions a minute of a core are read, verified and made again (`%s`).\n", spread("%.0f", intervalOf(r.Replays)), replayBenchmark)
	}
	out.WriteByte('\n')
}

func (r *ledgerReport) writeStarts(out *strings.Builder) {
	if r.Starts == nil {
		return
	}
	fmt.Fprintf(out, "### Start\n\nOn a ledger of %.2f GiB, %d records, half decisions and half their outcomes; medians of %d starts, with the least and the greatest. The raw counterpart reads and hashes the same files.\n\n"+
		"| what | s | CPU s | raw, s |\n| --- | --- | --- | --- |\n", float64(r.Starts.Bytes)/(1<<30), r.Starts.Records, r.Settings.Starts)
	for _, w := range r.Starts.Ways {
		took := slices.Sorted(slices.Values(w.Took))
		fmt.Fprintf(out, "| %s | %.2f [%.2f, %.2f] | %.2f | %.2f |\n", w.Title,
			intervalOf(w.Took).Median, took[0], took[len(took)-1], intervalOf(w.CPU).Median, intervalOf(w.Least).Median)
	}
	out.WriteByte('\n')
}
