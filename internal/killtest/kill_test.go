// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// killsVariable, in the environment, is how often every case kills.
	killsVariable = "WRIT_KILLS"
	// roundsPerKill bounds how many rounds it takes to a kill that counts, on average.
	roundsPerKill = 4
	// leastRate is how many calls a second writ must have answered before a kill, or the
	// kill does not count: a machine that is busy with something else gets more time.
	leastRate = 500
	// minUp and maxUp are how long the agent is under load before it is killed,
	// outage how long it is away with the load going on.
	minUp, maxUp = 200 * time.Millisecond, 450 * time.Millisecond
	outage       = 60 * time.Millisecond
	// minStart and maxStart are when a start in vain is killed: from reading the bundle
	// to serving.
	minStart, maxStart = 50 * time.Millisecond, 250 * time.Millisecond
	// outageRetries are how many of the calls that nobody saw are sent again.
	outageRetries = 5
)

func TestNoAnswerIsMissingAndNoEffectIsUndecidedAfterKill9(t *testing.T) {
	for _, c := range []struct {
		name        string
		enforcement writv1.Enforcement
		agent       string
		moment      moment
		kills       int
	}{
		{"ext_proc", writv1.Enforcement_ENFORCEMENT_EXT_PROC, agentPlain, atWrite, 20},
		{"ext_authz", writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, agentPlain, atWrite, 5},
		{"both filters", writv1.Enforcement_ENFORCEMENT_BOTH, agentPlain, atWrite, 3},
		// An answer that leaves before its record is written is ahead of it by less than
		// its way to the caller, unless writing takes long.
		{"ext_authz on a slow disk", writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ, agentSlow, atAnswer, 3},
		{"ext_proc on a slow disk", writv1.Enforcement_ENFORCEMENT_EXT_PROC, agentSlow, atAnswer, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			kills := killsOr(t, c.kills)
			d := openDesk(t, c.enforcement, nil)
			d.program = c.agent
			run := &run{desk: d, judge: newJudge(d), moment: c.moment}
			for run.kills < kills && run.rounds < roundsPerKill*kills && !t.Failed() {
				run.round(t)
			}
			run.finish(t, kills)
		})
	}
}

// killsOr returns how often a case kills: as often as killsVariable says, if it does.
func killsOr(t *testing.T, otherwise int) int {
	t.Helper()
	text := os.Getenv(killsVariable)
	if text == "" {
		return otherwise
	}
	kills, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", killsVariable, err)
	}
	return kills
}

// run is one desk through all of its kills.
type run struct {
	desk   *desk
	judge  *judge
	moment moment
	// rounds were played. Kills are those that count: atWrite, the agent was answering
	// leastRate calls a second, and a call was cut off. In vain are starts that were
	// killed before anybody knew whether they served; the other starts are starts.
	rounds, kills, vain, starts int
	// owed are the attempts that get retried once the agent is back.
	owed []*attempt
	// made are the attempts since the last judgement.
	made []*attempt

	// Figures for the report.

	answered        int
	up, restarts    time.Duration
	calls, cutCalls int
	cutAllows       int
	unserved        int
}

// round starts the agent, has it under load, kills it, and judges.
func (r *run) round(t *testing.T) {
	t.Helper()
	r.rounds++
	// Every other time the agent comes back to calls that are already waiting.
	quiet := r.rounds%2 == 1
	var calls *load
	if !quiet {
		calls = r.desk.startLoad()
	}
	away := time.Now()
	if r.rounds%4 == 0 {
		r.startInVain(t)
	}
	r.start(t)
	r.retry(t, quiet)
	if quiet {
		calls = r.desk.startLoad()
	}
	began := time.Now()
	killed := r.killAtMoment(t, calls)
	dead := time.Now()
	<-time.After(outage)
	made := calls.end()
	rate := r.measure(made, began, killed)
	r.made = append(r.made, made...)
	cut := r.judge.round(t, r.made)
	for _, a := range r.made {
		if a.began.After(dead) || a.ended.Before(away) {
			r.unserved++
			r.judge.outage(t, a)
		}
	}
	r.count(t, cut, rate)
	r.owe(cut, killed, dead)
	r.made = nil
}

// start starts the agent and waits until it serves.
func (r *run) start(t *testing.T) {
	t.Helper()
	began := time.Now()
	r.starts++
	r.desk.startAgent()
	r.made = append(r.made, r.desk.awaitServing()...)
	r.restarts += time.Since(began)
}

// startInVain starts the agent and kills it while it takes up what the kill before left.
func (r *run) startInVain(t *testing.T) {
	t.Helper()
	r.vain++
	r.judge.account.vain = true
	r.desk.startAgent()
	<-time.After(minStart + rand.N(maxStart-minStart))
	r.desk.agent.kill(t)
}

// retry sends again what was owed: each client its own, one after another.
func (r *run) retry(t *testing.T, quiet bool) {
	t.Helper()
	owed := map[*client][]*attempt{}
	for _, first := range r.owed {
		owed[first.client] = append(owed[first.client], first)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	for client, all := range owed {
		wait.Go(func() {
			for _, first := range all {
				again := first.retry()
				again.quiet = quiet
				client.send(t.Context(), again)
				r.judge.retried(t, first, again)
				mu.Lock()
				r.made = append(r.made, again)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
}

// measure counts what writ answered while it was up, and returns how much that is in
// a second.
func (r *run) measure(made []*attempt, began, killed time.Time) float64 {
	answered, up := 0, killed.Sub(began)
	for _, a := range made {
		if a.answered() && a.began.After(began) && a.ended.Before(killed) {
			answered++
		}
	}
	r.answered, r.up = r.answered+answered, r.up+up
	return float64(answered) / up.Seconds()
}

// count counts the round.
func (r *run) count(t *testing.T, cut []*attempt, rate float64) {
	t.Helper()
	allows := 0
	for _, a := range cut {
		if r.judge.account.byTrace[a.trace][0].allows() {
			allows++
		}
	}
	r.calls, r.cutCalls, r.cutAllows = r.calls+len(r.made), r.cutCalls+len(cut), r.cutAllows+allows
	if r.moment != atWrite || len(cut) > 0 && rate >= leastRate {
		r.kills++
	}
	t.Logf("round %d: %d calls, %.0f answered a second, %d cut off (%d of them allowed)", r.rounds, len(r.made), rate, len(cut), allows)
}

// owe says what is to be tried again in the next round: what was cut off, what was in
// Envoy's hands when the agent died, and some of what came later.
func (r *run) owe(cut []*attempt, killed, dead time.Time) {
	r.owed = cut
	later := 0
	for _, a := range r.made {
		switch {
		case a.answered() || slices.Contains(cut, a):
		case a.began.Before(dead) && a.ended.After(killed):
			r.owed = append(r.owed, a)
		case a.began.After(dead) && later < outageRetries:
			r.owed, later = append(r.owed, a), later+1
		}
	}
}

// finish brings the agent back for what is owed, and judges the whole.
func (r *run) finish(t *testing.T, kills int) {
	t.Helper()
	r.start(t)
	r.retry(t, true)
	r.close(t)
	t.Logf("%d kills that count, of %d, and %d of an agent that started; %d calls, %d cut off (%d of them allowed), %d while there was no agent; %.0f answered a second; %s to be back; %d records in %d epochs, %d torn, %d torn tails told by the start after",
		r.kills, r.rounds, r.vain, r.calls, r.cutCalls, r.cutAllows, r.unserved, float64(r.answered)/r.up.Seconds(),
		(r.restarts / time.Duration(r.starts)).Round(time.Millisecond), r.judge.account.size, r.judge.account.epochs, r.judge.account.torn, r.judge.account.tails)
	if !t.Failed() && r.kills < kills {
		t.Errorf("%d kills cut a call off at %d calls a second or more, want %d: none of the others counts", r.kills, leastRate, kills)
	}
}

// close stops agent and payments in good order, and judges what they leave.
func (r *run) close(t *testing.T) {
	t.Helper()
	r.desk.agent.stop(t)
	r.desk.payments.stop(t)
	r.judge.round(t, r.made)
	r.judge.last(t)
	r.verify(t)
}

// verify has the ledger verified by the program and the library, and folded by what
// the agent folds it with.
func (r *run) verify(t *testing.T) {
	t.Helper()
	verify := exec.CommandContext(t.Context(), program(t, agentPlain), "verify", "--ledger", r.desk.ledger())
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("writ verify: %v\n%s", err, out)
	}
	account := r.judge.account
	report, err := ledger.Verify(r.desk.ledger(), account.verifier)
	if err != nil {
		t.Fatal(err)
	}
	if report.Fault != nil || len(report.Notes) > 0 || !report.Ended || report.Records != account.size {
		t.Errorf("ledger.Verify: %+v, want %d records, ended", report, account.size)
	}
	if starts := uint64(r.starts); report.Epochs < starts || report.Epochs > starts+uint64(r.vain) {
		t.Errorf("the ledger has %d epochs, want one for each of %d starts, and at most %d more", report.Epochs, starts, r.vain)
	}
	state := agent.NewState(1_000_000)
	log, recovery, err := ledger.Open(ledger.Options{Dir: r.desk.ledger(), OnRecord: state.Fold})
	if err != nil {
		t.Fatalf("open the ledger: %v", err)
	}
	defer log.Close(nil)
	if recovery.Size != account.size || !recovery.Clean {
		t.Errorf("recovered %+v, want %d records and a clean end", recovery, account.size)
	}
	if dump := state.Dump(); strings.Contains(dump, "open ") {
		t.Errorf("calls are open in the state that the ledger folds to:\n%s", dump)
	}
}
