// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/transparency-dev/tessera/api/layout"

	"github.com/writ-dev/writ/ledger"
)

// lookTime bounds the look into the store that a metric takes.
const lookTime = 2 * time.Second

func (l *Log) register(registry prometheus.Registerer) {
	for _, g := range []struct {
		name, help string
		value      func() float64
	}{
		{"writ_collector_log_entries", "Entries that the collector's log is to have.", l.entries},
		{"writ_collector_log_published", "Entries under the newest published checkpoint.", l.published},
		{"writ_collector_log_differs", "1 where the log is not the store's, and is not gone on with.", func() float64 {
			if l.Err() != nil {
				return 1
			}
			return 0
		}},
	} {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.value))
	}
}

func (l *Log) entries() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	n, err := l.options.Source.EntryCount(ctx)
	if err != nil {
		return math.NaN()
	}
	return float64(n)
}

// published is the size that the checkpoint says: the file is our own.
func (l *Log) published() float64 {
	raw, err := os.ReadFile(filepath.Join(l.options.Dir, layout.CheckpointPath))
	if err != nil {
		return math.NaN()
	}
	text, _, _ := strings.Cut(string(raw), "\n\n")
	head, err := ledger.ParseHead(text + "\n")
	if err != nil {
		return math.NaN()
	}
	return float64(head.Size)
}
