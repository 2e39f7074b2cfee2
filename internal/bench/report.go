// SPDX-License-Identifier: Apache-2.0

package main

import "slices"

// report is what was measured, as JSON tells it.
type report struct {
	About    about         `json:"about"`
	Settings settings      `json:"settings"`
	Rows     []rowReport   `json:"rows"`
	Ratios   []ratioReport `json:"ratios"`
	Parts    []*part       `json:"parts,omitempty"`
	Grants   []grantRatio  `json:"grants,omitempty"`
}

// rowReport is one row's.
type rowReport struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Medians are those of the metrics over the rounds.
	Medians     map[string]interval `json:"medians"`
	Memory      int64               `json:"server_peak_memory_bytes,omitempty"`
	EnvoyMemory int64               `json:"envoy_peak_memory_bytes"`
	Rounds      []sample            `json:"rounds"`
}

// ratioReport holds one row against another: medians of the ratios within rounds.
type ratioReport struct {
	Row     string              `json:"row"`
	Against string              `json:"against"`
	Ratios  map[string]interval `json:"ratios"`

	title, againstTitle string
}

// metric is one number of a sample.
type metric struct {
	name string
	of   func(sample) float64
}

// metrics are all numbers that a sample has, or that come of it.
var metrics = []metric{
	{"requests_per_second", func(s sample) float64 { return s.Throughput }},
	{"server_cpu_closed", func(s sample) float64 { return s.ServerCPU }},
	{"envoy_cpu_closed", func(s sample) float64 { return s.EnvoyCPU }},
	{"total_cpu_closed", func(s sample) float64 { return s.ServerCPU + s.EnvoyCPU }},
	{"open_requests_per_second", func(s sample) float64 { return s.OpenRate }},
	{"p50_milliseconds", func(s sample) float64 { return s.P50 }},
	{"p99_milliseconds", func(s sample) float64 { return s.P99 }},
	{"server_cpu_open", func(s sample) float64 { return s.OpenServerCPU }},
	{"envoy_cpu_open", func(s sample) float64 { return s.OpenEnvoyCPU }},
	{"total_cpu_open", func(s sample) float64 { return s.OpenServerCPU + s.OpenEnvoyCPU }},
}

func newReport(about about, set settings, results []*result) *report {
	made := &report{About: about, Settings: set}
	for _, r := range results {
		made.Rows = append(made.Rows, rowOf(r))
		i := slices.IndexFunc(results, func(other *result) bool { return other.row.name == r.row.against })
		if i >= 0 {
			made.Ratios = append(made.Ratios, ratioOf(r, results[i]))
		}
	}
	return made
}

func rowOf(r *result) rowReport {
	out := rowReport{
		Name: r.row.name, Title: r.row.title, Medians: make(map[string]interval),
		Memory: r.memory, EnvoyMemory: r.envoyMemory, Rounds: r.samples,
	}
	for _, m := range metrics {
		out.Medians[m.name] = intervalOf(m.all(r.samples))
	}
	return out
}

func ratioOf(r, against *result) ratioReport {
	out := ratioReport{
		Row: r.row.name, Against: against.row.name, Ratios: make(map[string]interval),
		title: r.row.title, againstTitle: against.row.title,
	}
	for _, m := range metrics {
		ratios := quotients(m.all(r.samples), m.all(against.samples))
		if len(ratios) > 0 {
			out.Ratios[m.name] = intervalOf(ratios)
		}
	}
	return out
}

// all returns the metric of each sample.
func (m metric) all(samples []sample) []float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = m.of(s)
	}
	return values
}
