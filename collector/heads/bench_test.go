// SPDX-License-Identifier: Apache-2.0

package heads_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/heads"
)

// BenchmarkCatchUp adds b.N entries that are stored already: what a collector does whose
// log fell behind.
func BenchmarkCatchUp(b *testing.B) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "test.example/log")
	if err != nil {
		b.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		b.Fatal(err)
	}
	key, err := note.NewVerifier(vkey)
	if err != nil {
		b.Fatal(err)
	}
	source, dir := newEntries(b.N), b.TempDir()
	l, err := heads.New(heads.Options{Dir: dir, Signer: signer, Source: source})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	start := time.Now()
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	for size := uint64(0); size < uint64(b.N); { //nolint:gosec // not negative
		report, err := heads.Verify(ctx, heads.Evidence{Dir: dir, Key: key, Source: source})
		if err != nil || report.Fault != nil {
			b.Fatal(report, err)
		}
		size = report.Size
		<-time.After(50 * time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "entries/s")
	cancel()
	<-done
}
