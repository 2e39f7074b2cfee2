// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent/bundles"
)

// examples are the bundles of the tree that must load and pass as they are: two
// trades, one code.
var examples = []string{
	"../../examples/refunddesk/bundle",
	"../../examples/clinic/bundle",
}

func TestTheExamplesLoadWithoutWarningsAndPassTheirOwnTests(t *testing.T) {
	t.Parallel()
	for _, dir := range examples {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
			if err != nil {
				t.Fatalf("Load:\n%v", err)
			}
			for _, warning := range loaded.Warnings {
				t.Errorf("warning: %s", warning)
			}
			report := bundles.RunTests(loaded.Bundle, loaded.Suites, stopped)
			if len(report.Cases) < 12 {
				t.Errorf("the bundle has %d tests, want at least 12", len(report.Cases))
			}
			if len(report.Failed()) > 0 {
				var text strings.Builder
				if err := report.WriteText(&text); err != nil {
					t.Fatal(err)
				}
				t.Error(text.String())
			}
		})
	}
}

// stopped is a clock that stands.
func stopped() time.Time { return time.Unix(0, 0) }
