// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// kills that cut a call off are wanted, in at most so many rounds.
	kills, maxRounds = 20, 60
	// leastRate is how many calls a second writ must have answered while it was up.
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
	for _, enforcement := range []writv1.Enforcement{
		writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ,
		writv1.Enforcement_ENFORCEMENT_EXT_PROC,
	} {
		t.Run(strings.TrimPrefix(enforcement.String(), "ENFORCEMENT_"), func(t *testing.T) {
			run := &run{desk: openDesk(t, enforcement)}
			run.judge = newJudge(run.desk)
			for run.kills < kills && run.rounds < maxRounds && !t.Failed() {
				run.round(t)
			}
			run.finish(t)
		})
	}
}

// run is one desk through all of its kills.
type run struct {
	desk  *desk
	judge *judge
	// rounds were played, kills of them cut a call off; in vain are starts that were
	// killed before anybody knew whether they had come far enough to serve.
	rounds, kills, vain int
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
	killed := r.killAtMoment(t)
	dead := time.Now()
	<-time.After(outage)
	made := calls.end()
	r.measure(made, began, killed)
	r.made = append(r.made, made...)
	cut := r.judge.round(t, r.made)
	for _, a := range r.made {
		if a.began.After(dead) || a.ended.Before(away) {
			r.unserved++
			r.judge.outage(t, a)
		}
	}
	r.settle(t, cut, killed, dead)
}

// start starts the agent and waits until it serves.
func (r *run) start(t *testing.T) {
	t.Helper()
	began := time.Now()
	r.desk.startAgent()
	r.made = r.desk.awaitServing()
	r.restarts += time.Since(began)
}

// startInVain starts the agent and kills it while it takes up what the kill before left.
func (r *run) startInVain(t *testing.T) {
	t.Helper()
	r.vain++
	r.desk.startAgent()
	<-time.After(minStart + rand.N(maxStart-minStart))
	r.desk.agent.kill(t)
}

// retry sends again what was owed.
func (r *run) retry(t *testing.T, quiet bool) {
	t.Helper()
	for _, first := range r.owed {
		again := first.retry()
		again.quiet = quiet
		first.client.send(t.Context(), again)
		r.made = append(r.made, again)
		r.judge.retried(t, first, again)
	}
}

// killAtMoment kills the agent a random while later, at the moment that the ledger is
// written: the decisions in it are on their way to their callers.
func (r *run) killAtMoment(t *testing.T) (killed time.Time) {
	t.Helper()
	<-time.After(minUp + rand.N(maxUp-minUp))
	names := segments(t, r.desk.ledger())
	newest := filepath.Join(r.desk.ledger(), names[len(names)-1])
	agent := r.desk.agent
	agent.killed = true
	killed, err := killAtWrite(agent.command.Process.Pid, newest, 1+rand.IntN(8))
	if err != nil {
		t.Fatalf("wait for the moment: %v", err)
	}
	agent.kill(t)
	r.desk.agent = nil
	return killed
}

// killAtWrite sends SIGKILL to a process when it writes a file for the nth time from
// now. A thread that sleeps until then is woken sooner than one that looks again and
// again is given the processor back.
func killAtWrite(pid int, path string, n int) (time.Time, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return time.Time{}, err
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, path, unix.IN_MODIFY); err != nil {
		return time.Time{}, err
	}
	for range n {
		if err := awaitEvent(watch); err != nil {
			return time.Time{}, fmt.Errorf("nothing is written to %s: %w", path, err)
		}
	}
	err = unix.Kill(pid, unix.SIGKILL)
	return time.Now(), err
}

// awaitEvent waits for one event of an inotify watch, for as long as a program may take.
func awaitEvent(watch int) error {
	ready := []unix.PollFd{{Fd: int32(watch), Events: unix.POLLIN}}
	count, err := unix.Poll(ready, int(startTimeout.Milliseconds()))
	switch {
	case errors.Is(err, unix.EINTR):
		return awaitEvent(watch)
	case err != nil:
		return err
	case count == 0:
		return os.ErrDeadlineExceeded
	}
	var event [unix.SizeofInotifyEvent]byte
	_, err = unix.Read(watch, event[:])
	return err
}

// measure counts what writ answered while it was up.
func (r *run) measure(made []*attempt, began, killed time.Time) {
	for _, a := range made {
		if a.answered() && a.began.After(began) && a.ended.Before(killed) {
			r.answered++
		}
	}
	r.up += killed.Sub(began)
}

// settle counts the round, and says what is to be tried again in the next.
func (r *run) settle(t *testing.T, cut []*attempt, killed, dead time.Time) {
	t.Helper()
	r.calls += len(r.made)
	r.cutCalls += len(cut)
	if len(cut) > 0 {
		r.kills++
	}
	allows := 0
	for _, a := range cut {
		if r.judge.account.byTrace[a.trace][0].allows() {
			allows++
		}
	}
	r.cutAllows += allows
	r.owed = cut
	unseen := 0
	for _, a := range r.made {
		if a.answered() || slices.Contains(cut, a) {
			continue
		}
		// Those that were in Envoy's hands when the agent died, and some that came later.
		switch {
		case a.began.Before(dead) && a.ended.After(killed):
			r.owed = append(r.owed, a)
		case a.began.After(dead) && unseen < outageRetries:
			r.owed, unseen = append(r.owed, a), unseen+1
		}
	}
	t.Logf("kill %d: %d calls, %d cut off (%d of them allowed), %d to try again", r.rounds, len(r.made), len(cut), allows, len(r.owed))
}

// finish stops everything in good order and judges the whole.
func (r *run) finish(t *testing.T) {
	t.Helper()
	r.start(t)
	r.retry(t, true)
	r.desk.agent.stop(t)
	r.desk.payments.stop(t)
	r.judge.round(t, r.made)
	r.judge.last(t)
	r.verify(t)
	rate := float64(r.answered) / r.up.Seconds()
	t.Logf("%d kills that cut a call off, of %d, and %d of an agent that started; %d calls, %d cut off (%d of them allowed), %d while there was no agent; %.0f answered a second; %s to be back; %d records in %d epochs, %d torn",
		r.kills, r.rounds, r.vain, r.calls, r.cutCalls, r.cutAllows, r.unserved, rate,
		(r.restarts / time.Duration(r.rounds+1)).Round(time.Millisecond), r.judge.account.size, r.judge.account.epochs, r.judge.account.torn)
	if r.kills < kills {
		t.Errorf("%d kills cut a call off, want %d: none of the others proves anything", r.kills, kills)
	}
	if rate < leastRate {
		t.Errorf("writ answered %.0f calls a second, want %d", rate, leastRate)
	}
}

// verify has the ledger verified by the program and the library, and folded by what
// the agent folds it with.
func (r *run) verify(t *testing.T) {
	t.Helper()
	verify := exec.CommandContext(t.Context(), program(t, "writ"), "verify", "--ledger", r.desk.ledger())
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
	if starts := uint64(r.rounds + 1); report.Epochs < starts || report.Epochs > starts+uint64(r.vain) {
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
