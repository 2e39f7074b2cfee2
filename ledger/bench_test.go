// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func BenchmarkAppend(b *testing.B) {
	for _, d := range []writv1.Durability{process, node} {
		for _, writers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", d, writers), func(b *testing.B) {
				o := options(b.TempDir())
				o.MaxBytes = 8 << 30
				l, _ := open(b, o)
				e := decision(1)
				took := make([][]time.Duration, writers)
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							start := time.Now()
							if _, err := l.Append(context.Background(), e, d); err != nil {
								b.Error(err)
								return
							}
							took[w] = append(took[w], time.Since(start))
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				report(b, slices.Concat(took...))
			})
		}
	}
}

func BenchmarkAppendPaced(b *testing.B) {
	l, _ := open(b, options(b.TempDir()))
	e := decision(1)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		<-tick.C
		start := time.Now()
		if _, err := l.Append(context.Background(), e, process); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "rec/s")
}

// BenchmarkRecovery opens a ledger of 200 MB.
func BenchmarkRecovery(b *testing.B) {
	o := options(b.TempDir())
	l, _, err := ledger.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	e := decision(1)
	for l.Status().Bytes < 200<<20 {
		for range 1000 {
			if err := l.AppendAsync(context.Background(), e); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := l.Close(nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(l.Status().Bytes)
	o.OnRecord = func(*writv1.Record) error { return nil }
	for b.Loop() {
		l, _, err := ledger.Open(o)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(nil); err != nil {
			b.Fatal(err)
		}
	}
}
