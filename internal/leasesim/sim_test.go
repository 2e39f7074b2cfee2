// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
)

func TestAThousandAgentsSpendABudgetAndNoMore(t *testing.T) {
	t.Parallel()
	f := Run(usualSeed)
	if f.Overshoot != 0 || f.Spent > limit {
		t.Errorf("%d are spent, and %d more than the limit were spent or in agents' hands", f.Spent, f.Overshoot)
	}
	if f.Utilisation() <= 95 {
		t.Errorf("%.2f%% of the budget are used", f.Utilisation())
	}
	if f.Kills == 0 || f.Crashes == 0 || f.Losses == 0 || f.Partitions == 0 {
		t.Errorf("nothing went wrong: %+v", f)
	}
	page, err := os.ReadFile("../../" + docPage)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), table(&f)) {
		t.Errorf("%s does not show what the simulation gives; \"make leasesim\" writes it:\n%s", docPage, table(&f))
	}
	picture, err := os.ReadFile("../../" + docPicture)
	if err != nil {
		t.Fatal(err)
	}
	if string(picture) != graph(&f) {
		t.Errorf("%s is not the picture of it; \"make leasesim\" draws it", docPicture)
	}
}
