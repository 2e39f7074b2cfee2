// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-dev/writ/ledger/stream"
)

// Metrics counts what is taken, for Prometheus. A nil *Metrics counts nothing.
type Metrics struct {
	records, bytes prometheus.Counter
	findings       *prometheus.CounterVec
	streams        prometheus.Gauge
}

// NewMetrics returns metrics that are registered with registry.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		records:  prometheus.NewCounter(prometheus.CounterOpts{Name: "writ_collector_records_total", Help: "Records that were verified and stored."}),
		bytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "writ_collector_bytes_total", Help: "Bytes of bundles that were taken, those sent again included."}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "writ_collector_findings_total", Help: "Ledgers that were not taken, by what is wrong."}, []string{"finding"}),
		streams:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "writ_collector_streams", Help: "Agents that are connected."}),
	}
	registry.MustRegister(m.records, m.bytes, m.findings, m.streams)
	for kind := stream.Malformed; kind <= stream.Fork; kind++ {
		// A count that is not there yet cannot be seen to rise.
		m.findings.WithLabelValues(kind.String())
	}
	return m
}

func (m *Metrics) begin() {
	if m != nil {
		m.streams.Inc()
	}
}

func (m *Metrics) end() {
	if m != nil {
		m.streams.Dec()
	}
}

func (m *Metrics) stored(records int, bytes uint64) {
	if m != nil {
		m.records.Add(float64(records))
		m.bytes.Add(float64(bytes))
	}
}

func (m *Metrics) found(kind stream.FindingKind) {
	if m != nil {
		m.findings.WithLabelValues(kind.String()).Inc()
	}
}
