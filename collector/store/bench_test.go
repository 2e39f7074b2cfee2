// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// kibibyte makes decisions records of 1 KiB.
func kibibyte(_ *ledger.Entry, d *writv1.DecisionRecord) { d.Arguments = make([]byte, 860) }

// full is n bundles of 256 records, accepted one after the other: half decisions of
// 1 KiB, half their outcomes.
func full(tb testing.TB, n int) (*source, []stream.Accepted) {
	tb.Helper()
	var entries []ledger.Entry
	for i := range n * 128 {
		// Ids of decisions are random: they are written all over the index.
		d, o := decision(i, kibibyte), outcome(i)
		d.DecisionID = binary.BigEndian.AppendUint64(nil, rand.Uint64())
		d.DecisionID = append(d.DecisionID, d.DecisionID...)
		o.DecisionID = d.DecisionID
		entries = append(entries, d, o)
	}
	src := newSource(tb, 256, entries...)
	held := stream.Holding{Origin: src.origin}
	out := make([]stream.Accepted, len(src.bundles))
	for i, bundle := range src.bundles {
		out[i] = src.accept(tb, held, bundle)
		held = out[i].Holding
	}
	return src, out
}

func putFull(tb testing.TB, s *store.Store, src *source, all []stream.Accepted) {
	tb.Helper()
	held := stream.Holding{Origin: src.origin}
	for _, a := range all {
		if err := s.Put(tb.Context(), held, a, src.vkey); err != nil {
			tb.Fatal(err)
		}
		held = a.Holding
	}
}

func BenchmarkPut(b *testing.B) {
	src, all := full(b, b.N)
	s := open(b, b.TempDir())
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	putFull(b, s, src, all)
	b.ReportMetric(float64(256*len(all))/time.Since(start).Seconds(), "records/s")
}

func BenchmarkList(b *testing.B) {
	src, all := full(b, 100)
	s := open(b, b.TempDir())
	putFull(b, s, src, all)
	for name, filter := range map[string]*writv1.RecordFilter{
		"newest": nil, "tool": {Tool: "tool.1"}, "principal": {Principal: "u3"}, "tool and verdict": {Tool: "tool.1", Verdict: writv1.Verdict_VERDICT_DENY},
		"none": {Tool: "x"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.List(b.Context(), store.Selection{Filter: filter}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("decision", func(b *testing.B) {
		for b.Loop() {
			if got, err := s.ByDecision(b.Context(), all[7].Decoded[0].GetDecisionId()); err != nil || len(got) != 2 {
				b.Fatal(len(got), err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	src, all := full(b, 40)
	dir := b.TempDir()
	s := open(b, dir)
	putFull(b, s, src, all)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	n := 0
	for b.Loop() {
		if report, err := store.Verify(b.Context(), dir); err != nil || report.Err() != nil {
			b.Fatal(report, err)
		}
		n += 40 * 256
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "records/s")
}
