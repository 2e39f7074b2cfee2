// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Metrics counts decisions for Prometheus. A nil *Metrics counts nothing.
type Metrics struct {
	decisions *prometheus.CounterVec
	alerts    *prometheus.CounterVec
	overruns  *prometheus.CounterVec
	reviews   *prometheus.CounterVec
	originals *prometheus.CounterVec
	duration  prometheus.Histogram
}

// NewMetrics returns metrics that are registered with registry.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_decisions_total",
			Help: "Decisions, by face, tool, verdict and reason. A tool the bundle does not have counts as \"unknown\".",
		}, []string{"surface", "tool", "verdict", "reason"}),
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_alerts_total",
			Help: "Alerts that were recorded, by kind and by the budget, or the series that drifts.",
		}, []string{"kind", "of"}),
		overruns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_budget_overruns_total",
			Help: "Calls that took more of a budget than their worst case.",
		}, []string{"budget"}),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_reviews_total",
			Help: "Calls that were put up for review, by the band of their risk.",
		}, []string{"band"}),
		originals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_originals_total",
			Help: "Decisions and outcomes of which a tool asks to have the sensitive values kept: sealed, or why not (no_key, too_large).",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "writ_decision_duration_seconds",
			Help:    "Time from receiving a call to its durable decision.",
			Buckets: prometheus.ExponentialBuckets(25e-6, 2, 16),
		}),
	}
	registry.MustRegister(m.decisions, m.alerts, m.overruns, m.reviews, m.originals, m.duration)
	for gap := range writv1.OriginalsGap_name {
		// A count that is not there yet cannot be seen to rise.
		m.originals.WithLabelValues(originalsResult(writv1.OriginalsGap(gap)))
	}
	return m
}

// alert counts an alert. The names of budgets and of tools that were allowed are the
// bundle's, so that callers cannot make series.
func (m *Metrics) alert(a *writv1.AlertRecord) {
	if m == nil {
		return
	}
	m.alerts.WithLabelValues(strings.ToLower(strings.TrimPrefix(a.GetKind().String(), "ALERT_KIND_")), a.GetBudget()+a.GetDrift().GetSeries()).Inc()
}

// original counts a record whose originals are asked for, by what became of them.
func (m *Metrics) original(gap writv1.OriginalsGap) {
	if m == nil {
		return
	}
	m.originals.WithLabelValues(originalsResult(gap)).Inc()
}

func originalsResult(gap writv1.OriginalsGap) string {
	if gap == writv1.OriginalsGap_ORIGINALS_GAP_UNSPECIFIED {
		return "sealed"
	}
	return strings.ToLower(strings.TrimPrefix(gap.String(), "ORIGINALS_GAP_"))
}

// overrun counts a bill above the worst case.
func (m *Metrics) overrun(budget string) {
	if m == nil {
		return
	}
	m.overruns.WithLabelValues(budget).Inc()
}

// observe counts a decision that began at start. The tool's name is a label only
// when the bundle has it, so that callers cannot make series.
func (m *Metrics) observe(ad *Admission, start time.Time) {
	if m == nil {
		return
	}
	tool := "unknown"
	if ad.result.Tool != nil {
		tool = ad.result.Tool.Name
	}
	m.decisions.WithLabelValues(
		strings.ToLower(strings.TrimPrefix(ad.request.Surface.String(), "SURFACE_")),
		tool,
		strings.TrimPrefix(ad.result.Decision.GetVerdict().String(), "VERDICT_"),
		reasons.Name(ad.result.Decision.GetReason()),
	).Inc()
	if ad.drawn() {
		m.reviews.WithLabelValues(ad.result.Decision.GetRisk().GetBand()).Inc()
	}
	m.duration.Observe(time.Since(start).Seconds())
}
