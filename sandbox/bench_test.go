// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/writ-dev/writ/sandbox"
)

// BenchmarkTrue measures what the walls cost: /bin/true by fork and exec alone, under the walls by the
// small launcher, and under them by re-executing the running program.
func BenchmarkTrue(b *testing.B) {
	run := func(r *sandbox.Runner) func() error {
		return func() error {
			_, err := r.Run(b.Context(), sandbox.Spec{Path: "/bin/true"})
			return err
		}
	}
	for _, bb := range []struct {
		name string
		once func() error
	}{
		{"plain", func() error { return exec.Command("/bin/true").Run() }},
		{"launcher", run(newRunner(b))},
		{"self", run(newRunner(b, func(o *sandbox.Options) { o.Launcher = "" }))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				begun := time.Now()
				if err := bb.once(); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1e3, "median-ms")
			b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
		})
	}
}
