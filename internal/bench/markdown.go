// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// The lines of a document between which the results stand.
const (
	beginMark = "<!-- results: written by \"make bench\" -->"
	endMark   = "<!-- end of results -->"
)

// markdown tells what was measured in tables.
func (r *report) markdown() string {
	var out strings.Builder
	r.writeAbout(&out)
	r.writeRatios(&out)
	r.writeRows(&out)
	r.writeGrants(&out)
	r.writeParts(&out)
	return out.String()
}

func (r *report) writeAbout(out *strings.Builder) {
	a, set := r.About, r.Settings
	fmt.Fprintf(out, "Measured on %s: %s, %d cores, %.0f GiB, Linux %s, ledger on %s; Envoy %s (concurrency 1), %s.\n",
		a.Time.Format("2006-01-02"), a.CPU, a.Cores, float64(a.Memory)/(1<<30), a.Kernel, a.FileSystem, a.Envoy, a.Writ)
	fmt.Fprintf(out, "%d interleaved rounds; in each, each row has %s of %d connections in a closed loop and %s of %d calls a second in an open one.\n\n",
		set.Rounds, set.Load, set.Connections, set.Load, set.Rate)
}

// ratioColumns are the columns of the table of ratios.
var ratioColumns = []struct{ title, metric string }{
	{"throughput", "requests_per_second"},
	{"server's CPU", "server_cpu_closed"},
	{"server's and Envoy's CPU", "total_cpu_closed"},
	{"server's CPU, open loop", "server_cpu_open"},
	{"p50, open loop", "p50_milliseconds"},
	{"p99, open loop", "p99_milliseconds"},
}

func (r *report) writeRatios(out *strings.Builder) {
	if len(r.Ratios) == 0 {
		return
	}
	fmt.Fprintf(out, "### Ratios\n\nMedians of the ratios within rounds%s.\n\n| row | against |", coverage(r.Ratios[0].Ratios["requests_per_second"]))
	for _, c := range ratioColumns {
		fmt.Fprintf(out, " %s |", c.title)
	}
	out.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(ratioColumns)) + "\n")
	for _, ratio := range r.Ratios {
		fmt.Fprintf(out, "| %s | %s |", ratio.title, ratio.againstTitle)
		for _, c := range ratioColumns {
			value, found := ratio.Ratios[c.metric]
			if !found || value.Median == 0 {
				out.WriteString(" - |")
				continue
			}
			fmt.Fprintf(out, " %s |", value)
		}
		out.WriteByte('\n')
	}
	out.WriteByte('\n')
}

func coverage(i interval) string {
	if i.Coverage < confidence {
		return ", with the least and the greatest: too few rounds for an interval of confidence"
	}
	return fmt.Sprintf(", with their interval of %.1f%% confidence", 100*i.Coverage)
}

func (r *report) writeRows(out *strings.Builder) {
	out.WriteString("### Rows\n\nMedians of the rounds; CPU in seconds per 1,000 requests; memory is the most that was resident.\n\n" +
		"| row | requests/s | server's CPU | Envoy's CPU | p50 ms, open loop | p99 ms | server's CPU | Envoy's CPU | server's memory MB | Envoy's MB |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, row := range r.Rows {
		of := func(metric string) float64 { return row.Medians[metric].Median }
		fmt.Fprintf(out, "| %s | %.0f | %s | %.4f | %.2f | %.2f | %s | %.4f | %s | %.0f |\n",
			row.Title, of("requests_per_second"), orDash("%.4f", of("server_cpu_closed")), of("envoy_cpu_closed"),
			of("p50_milliseconds"), of("p99_milliseconds"), orDash("%.4f", of("server_cpu_open")), of("envoy_cpu_open"),
			orDash("%.0f", float64(row.Memory)/1e6), float64(row.EnvoyMemory)/1e6)
	}
	out.WriteByte('\n')
	for _, row := range r.Rows {
		if rate := row.Medians["open_requests_per_second"].Median; rate < 0.98*float64(r.Settings.Rate) {
			fmt.Fprintf(out, "%s did not hold %d calls a second: %.0f were answered.\n\n", row.Title, r.Settings.Rate, rate)
		}
	}
}

func orDash(format string, value float64) string {
	if value == 0 {
		return "-"
	}
	return fmt.Sprintf(format, value)
}

func (r *report) writeGrants(out *strings.Builder) {
	ratios := r.Grants
	if len(ratios) == 0 {
		return
	}
	fmt.Fprintf(out, "### 10,000 grants against 10\n\nA whole decision, decoding included; medians of %d runs%s.\n\n"+
		"| layout | 10 grants, µs | 10,000 grants, µs | ratio |\n| --- | --- | --- | --- |\n", partCount, coverage(ratios[0].Ratio))
	for _, g := range ratios {
		fmt.Fprintf(out, "| %s | %.2f | %.2f | %s |\n", g.Layout, g.Few/1e3, g.Many/1e3, g.Ratio)
	}
	out.WriteByte('\n')
}

func (r *report) writeParts(out *strings.Builder) {
	if len(r.Parts) == 0 {
		return
	}
	fmt.Fprintf(out, "### Parts\n\nGo's own benchmarks, medians of %d runs.\n\n| package | benchmark | µs | bytes | allocations |\n| --- | --- | --- | --- | --- |\n", partCount)
	for _, p := range r.Parts {
		fmt.Fprintf(out, "| `%s` | %s | %.2f | %.0f | %.0f |\n", p.Package, p.Name, intervalOf(p.Nanoseconds).Median/1e3, p.Bytes, p.Allocations)
	}
	out.WriteString("\n```sh\n")
	for _, p := range packages {
		fmt.Fprintln(out, partsCommand(p.path, p.benchmarks))
	}
	out.WriteString("```\n")
}

// writeDoc puts text between the marks of a document.
func writeDoc(file, text string) error {
	doc, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	before, rest, begins := bytes.Cut(doc, []byte(beginMark+"\n"))
	_, after, ends := bytes.Cut(rest, []byte(endMark))
	if !begins || !ends {
		return fmt.Errorf("write the results: %s has no lines %q and %q", file, beginMark, endMark)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s%s\n\n%s\n\n%s%s", before, beginMark, strings.TrimSpace(text), endMark, after)
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}
