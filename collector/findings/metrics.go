// SPDX-License-Identifier: Apache-2.0

package findings

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scrapeTime bounds the look into the store that a scrape takes.
const scrapeTime = 2 * time.Second

var (
	keptDesc   = prometheus.NewDesc("writ_collector_findings", "Findings that are kept, by what is wrong.", []string{"finding"}, nil)
	silentDesc = prometheus.NewDesc("writ_collector_silent_ledgers", "Ledgers that have not ended and from which nothing comes.", nil, nil)
)

// gauges are what is the case at a scrape. They tell kinds and numbers alone: whoever
// scrapes need not be one who may know of ledgers or tenants.
type gauges struct{ keeper *Keeper }

// Describe names the metrics.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	out <- keptDesc
	out <- silentDesc
}

// Collect gives the metrics. Where the store cannot be read those of it are absent.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(silentDesc, prometheus.GaugeValue, float64(len(g.keeper.silentOnes())))
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	counts, err := g.keeper.options.Store.CountFindings(ctx)
	if err != nil {
		g.keeper.options.Log.ErrorContext(ctx, "findings cannot be counted", "error", err)
		return
	}
	for kind, n := range counts {
		out <- prometheus.MustNewConstMetric(keptDesc, prometheus.GaugeValue, float64(n), kind)
	}
}
