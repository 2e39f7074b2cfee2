// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"testing"
	"time"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// The scenarios say what a contract's sources, outputs and unacceptable outcomes hold.
func TestRunsComeOutAsTheirContractsSay(t *testing.T) {
	t.Parallel()
	loaded, err := bundles.Load(t.Context(), "testdata/contracts", bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	played := bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now)
	if len(played) != 10 {
		t.Errorf("%d scenarios were played", len(played))
	}
	for i := range played {
		for _, difference := range played[i].Differences {
			t.Errorf("%s: %s", played[i].Scenario.GetName(), difference)
		}
	}
}
