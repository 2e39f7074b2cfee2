// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
)

const (
	// pruneTimeout is how long it may take until the ledger is made shorter under load.
	pruneTimeout = 2 * time.Minute
	// prunedSegments are gone then, and more: they hold 2,000 records at least.
	prunedSegments = 16
	// prunedRetries are how many of the calls whose records are gone are sent again.
	prunedRetries = 100
)

// What the collector has acknowledged is removed from the agent's ledger, and a snapshot
// stands for it: a key that was spent long ago is spent after a kill too, and so is
// what was taken from a budget.
func TestWhatWasPrunedStillCountsAfterKill9(t *testing.T) {
	if os.Getenv(killsVariable) == "" {
		t.Skip("it takes half a minute: make test-parts runs it")
	}
	r := openUpstream(t)
	calls := r.desk.startLoad()
	marker := ""
	r.desk.agent.awaitFor(t, pruneTimeout, func() bool {
		names := segments(t, r.desk.ledger())
		if marker == "" && len(names) > prunedSegments {
			marker = names[prunedSegments]
		}
		return marker != "" && !slices.Contains(names, marker)
	})
	r.desk.agent.kill(t)
	made := calls.end()
	if _, err := os.Stat(filepath.Join(r.desk.ledger(), agent.SnapshotFile)); err != nil {
		t.Errorf("records were pruned, and there is no snapshot: %v", err)
	}
	r.made = append(r.made, made...)
	r.start(t)
	retries := r.retryOldest(t, made)
	r.desk.agent.stop(t)
	r.desk.payments.stop(t)
	r.collector.stop(t)
	// The agent's ledger begins too late to be held against: the collector's is whole.
	r.kept.account, r.judge.update = r.judge.account, r.kept.update
	r.judge.round(t, r.made)
	r.judge.last(t)
	for old, again := range retries {
		r.judge.retried(t, old, again)
	}
	r.checkPruned(t, retries)
	t.Logf("%d calls, %d records upstream, %d retries of calls that were pruned", len(r.made), r.kept.size, len(retries))
}

// retryOldest sends the oldest refunds that succeeded again.
func (r *upstreamRun) retryOldest(t *testing.T, made []*attempt) map[*attempt]*attempt {
	t.Helper()
	retries := map[*attempt]*attempt{}
	slices.SortFunc(made, func(a, b *attempt) int { return a.began.Compare(b.began) })
	for _, old := range made {
		if old.kind != refund || !old.succeeded() || len(retries) == prunedRetries {
			continue
		}
		again := old.retry()
		again.quiet = true
		old.client.send(t.Context(), again)
		r.made, retries[old] = append(r.made, again), again
	}
	return retries
}

// checkPruned says whether the records of what was sent again are gone.
func (r *upstreamRun) checkPruned(t *testing.T, retries map[*attempt]*attempt) {
	t.Helper()
	report, err := ledger.Verify(r.desk.ledger(), verifierOf(t, r.desk.ledger()))
	if err != nil {
		t.Fatal(err)
	}
	if report.Fault != nil {
		t.Errorf("the ledger that was made shorter does not verify: %v", report.Fault)
	}
	for old := range retries {
		if decided := r.judge.account.byTrace[old.trace]; len(decided) != 1 || decided[0].index >= report.First {
			t.Errorf("%s is still in the ledger, which begins with record %d", old, report.First)
		}
	}
}
