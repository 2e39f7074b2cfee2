// SPDX-License-Identifier: Apache-2.0

package ingest

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what is taken, for Prometheus. A nil *Metrics counts nothing.
type Metrics struct {
	records, bytes prometheus.Counter
	streams        prometheus.Gauge
}

// NewMetrics returns metrics that are registered with registry.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		records: prometheus.NewCounter(prometheus.CounterOpts{Name: "writ_collector_records_total", Help: "Records that were verified and stored."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "writ_collector_bytes_total", Help: "Bytes of bundles that were taken, those sent again included."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "writ_collector_streams", Help: "Agents that are connected."}),
	}
	registry.MustRegister(m.records, m.bytes, m.streams)
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
