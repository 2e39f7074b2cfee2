// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// patience is how long a refund waits for the collector.
	patience = 300 * time.Millisecond
	// collectorOutage is how long the collector is away with the load going on: refunds
	// lose their patience.
	collectorOutage = 2 * patience
	// agentEvery is how many rounds kill the agent too, while the collector is away.
	agentEvery = 3
)

func TestNoAnswerIsMissingUpstreamAfterKill9OfTheCollector(t *testing.T) {
	kills := killsOr(t, 5)
	r := openUpstream(t)
	for r.rounds < kills && !t.Failed() {
		r.round(t)
	}
	r.finish(t)
}

// upstreamRun is a desk whose collector is killed again and again.
type upstreamRun struct {
	run
	// config is the file of the collector's.
	config    string
	collector *process
	kept      *kept
	// succeeded are the refunds that did, refused counts those that waited in vain.
	succeeded []*attempt
	refused   int
	// away is how long refunds were refused after the collector was back.
	away time.Duration
}

// openUpstream starts collector and agent, and makes them known to each other.
func openUpstream(t *testing.T) *upstreamRun {
	t.Helper()
	d := openDesk(t, writv1.Enforcement_ENFORCEMENT_EXT_PROC, &writv1.CollectorConnection{AcknowledgeTimeout: durationpb.New(patience)})
	r := &upstreamRun{run: run{desk: d, judge: newJudge(d)}, kept: &kept{dir: d.path("collector"), decisions: map[string]bool{}}}
	r.config = d.writeConfig("collector.yaml", &writv1.CollectorConfig{
		DataDir: d.path("collector"), Listener: "unix:" + d.path("collector.sock"), AgentsFile: d.path("agents"),
	})
	d.write("agents", nil)
	r.startCollector(t)
	r.collector.await(t, func() bool {
		_, err := os.Stat(r.desk.upstream.GetPublicKeyFile())
		return err == nil
	})
	r.start(t)
	key, err := os.ReadFile(r.desk.path("data/ledger/log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	r.desk.write("agents", key)
	r.awaitRefund(t)
	return r
}

func (r *upstreamRun) startCollector(t *testing.T) {
	t.Helper()
	r.collector = start(t, "collector", program(t, agentPlain), "collector", "--config", r.config)
}

// awaitRefund waits until a refund succeeds: its decision is upstream.
func (r *upstreamRun) awaitRefund(t *testing.T) {
	t.Helper()
	began := time.Now()
	r.collector.await(t, func() bool {
		c := r.desk.clients[1]
		probe := c.make(c.count.Add(1), refund, 1)
		c.send(t.Context(), probe)
		r.made = append(r.made, probe)
		return probe.succeeded()
	})
	r.away += time.Since(began)
}

// round kills the collector under load, and now and then the agent too, holds what the
// clients were answered against what the collector stored, and starts them again.
func (r *upstreamRun) round(t *testing.T) {
	t.Helper()
	r.rounds++
	calls := r.desk.startLoad()
	began := time.Now()
	<-time.After(minUp + rand.N(maxUp-minUp))
	killed, err := killAtWrite(r.collector.command.Process.Pid, r.kept.dir, 1+rand.IntN(8))
	if err != nil {
		t.Fatalf("wait for the moment: %v\n%s", err, r.collector.output.String())
	}
	r.collector.killed = true
	r.collector.kill(t)
	dead := time.Now()
	<-time.After(collectorOutage)
	agentToo := r.rounds%agentEvery == 0
	if agentToo {
		r.desk.agent.kill(t)
	}
	made := calls.end()
	r.measure(made, began, killed)
	r.made = append(r.made, made...)
	r.judgeUpstream(t, made, dead)
	r.startCollector(t)
	if agentToo {
		r.owe(r.judge.round(t, r.made), killed, dead)
		r.made = nil
		r.start(t)
		r.retry(t, false)
	}
	r.awaitRefund(t)
	t.Logf("round %d: %d calls, %d refunds have succeeded, %d records are stored", r.rounds, len(made), len(r.succeeded), r.kept.size)
}

// judgeUpstream judges what the collector has, while it is dead.
func (r *upstreamRun) judgeUpstream(t *testing.T, made []*attempt, dead time.Time) {
	t.Helper()
	for _, a := range made {
		switch {
		case a.kind != refund:
		case a.succeeded() && a.began.After(dead):
			t.Errorf("%s, while there was no collector", a)
		case a.succeeded():
			r.succeeded = append(r.succeeded, a)
		case a.denial != nil && a.denial.Reason == "LEDGER_NOT_ACKNOWLEDGED":
			r.refused++
		}
	}
	r.kept.update(t)
	for _, a := range r.succeeded {
		if !r.kept.decisions[a.trace] {
			t.Errorf("%s, and its decision is missing upstream", a)
		}
	}
	r.verifyLog(t)
}

// verifyLog has the store and the collector's log beside it verified. It returns how many
// entries the log has, and how many it is still to have.
func (r *upstreamRun) verifyLog(t *testing.T) (size, pending int) {
	t.Helper()
	verify := exec.CommandContext(t.Context(), program(t, agentPlain), "verify", "--store", r.kept.dir, "--key", r.desk.path("data/ledger/log.vkey"), "--output", "json")
	out, err := verify.Output()
	var found struct {
		Log *struct {
			Verified bool `json:"verified"`
			Size     int  `json:"size"`
			Pending  int  `json:"pending"`
		} `json:"log"`
	}
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil || found.Log == nil || !found.Log.Verified {
		t.Fatalf("writ verify: %v\n%s", err, out)
	}
	return found.Log.Size, found.Log.Pending
}

// finish stops everything in good order: then all that the agent recorded is upstream.
func (r *upstreamRun) finish(t *testing.T) {
	t.Helper()
	r.close(t)
	r.collector.stop(t)
	r.kept.update(t)
	for trace, decided := range r.judge.account.byTrace {
		if !r.kept.decisions[trace] {
			t.Errorf("decision %s is missing upstream", decided[0].id)
		}
	}
	r.verifyStore(t)
	t.Logf("%d kills of the collector; %d refunds succeeded, %d were refused for want of it; %.0f calls answered a second; %s until refunds succeed again; %d records upstream",
		r.rounds, len(r.succeeded), r.refused, float64(r.answered)/r.up.Seconds(), (r.away / time.Duration(r.rounds+1)).Round(time.Millisecond), r.kept.size)
	if r.refused == 0 {
		t.Error("no refund was refused for want of a collector: it was never missed")
	}
}

// verifyStore has the store verified, and held against the ledger.
func (r *upstreamRun) verifyStore(t *testing.T) {
	t.Helper()
	if size, pending := r.verifyLog(t); pending > 0 || size < r.rounds {
		t.Errorf("the collector's log has %d entries, and %d are missing", size, pending)
	}
	report, err := store.Verify(t.Context(), r.kept.dir)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ledger.Verify(r.desk.ledger(), r.judge.account.verifier)
	if err != nil {
		t.Fatal(err)
	}
	if report.Err() != nil || len(report.Ledgers) != 1 {
		t.Fatalf("store.Verify: %+v, %v", report, report.Err())
	}
	r.verifyWithoutWrit(t, own)
	r.nothingIsWrong(t)
	// One root: every record is there, byte for byte, in its place.
	if held := report.Ledgers[0]; held.Size != own.Size || held.Root != own.Root || !held.Ended {
		t.Errorf("the store holds %+v, and the ledger %+v", held, own)
	}
}

// nothingIsWrong fails on what the collector found: all but that the agent came before its
// key was listed, for the agent makes it.
func (r *upstreamRun) nothingIsWrong(t *testing.T) {
	t.Helper()
	kept, err := store.OpenReadOnly(t.Context(), r.kept.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close() //nolint:errcheck // read only
	found, err := kept.Findings(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Kind != stream.UnknownKey.String() || f.HeldSize > 0 {
			t.Errorf("the collector found a %s: %s", f.Kind, f.Detail)
		}
	}
}

// kept is what the collector's store holds, read while the collector is dead.
type kept struct {
	dir string
	// last is the number of the newest record that was read, size how many were.
	last int64
	size uint64
	// decisions are the traceparents of those that are there.
	decisions map[string]bool
	// account, if there is one, takes every record.
	account *account
}

// update reads what is new.
func (k *kept) update(t *testing.T) {
	t.Helper()
	s, err := store.OpenReadOnly(t.Context(), k.dir)
	if err != nil {
		t.Fatalf("open the store that the kill left: %v", err)
	}
	defer s.Close()
	for {
		found, err := s.List(t.Context(), store.Selection{After: k.last, Forward: true, Limit: store.MaxLimit})
		if err != nil {
			t.Fatalf("list the store that the kill left: %v", err)
		}
		if len(found) == 0 {
			return
		}
		for i := range found {
			k.take(t, &found[i])
		}
	}
}

func (k *kept) take(t *testing.T, stored *store.Stored) {
	t.Helper()
	record := &writv1.Record{}
	if err := canonical.Unmarshal(stored.Raw, record); err != nil {
		t.Fatalf("read a stored record: %v", err)
	}
	if record.GetIndex() != k.size {
		t.Errorf("record %d is stored in the place of %d", record.GetIndex(), k.size)
	}
	k.last, k.size = stored.Seq, k.size+1
	if k.account != nil {
		k.account.fold(t, record)
	}
	body, err := ledger.Body(record)
	if err != nil {
		t.Fatalf("record %d: %v", record.GetIndex(), err)
	}
	if made, ok := body.(*writv1.DecisionRecord); ok {
		k.decisions[made.GetTraceParent()] = true
		if len(record.GetDecisionId()) == 0 {
			t.Errorf("record %d decides nothing: %s", record.GetIndex(), hex.EncodeToString(stored.Raw))
		}
	}
}

// verifyWithoutWrit has the ledger, and the collector's log of its heads, verified by a
// reader that shares no code with writ.
func (r *upstreamRun) verifyWithoutWrit(t *testing.T, own *ledger.Report) {
	t.Helper()
	key, log := r.desk.path("data/ledger/log.vkey"), r.kept.dir+"/head_log"
	for _, c := range []struct {
		args []string
		want string
	}{
		{
			[]string{"ledger", r.desk.ledger(), key},
			fmt.Sprintf("records   %d to %d, under %d signed heads\nroot      %x of size %d\n", own.First, own.Size, own.Heads, own.Root, own.Size),
		},
		{[]string{"log", log + "/tiles", log + "/log.vkey", key}, fmt.Sprintf("ledger    %s of size %d\n", own.Origin, own.Size)},
	} {
		verify := exec.CommandContext(t.Context(), "python3", append([]string{module + "/examples/audit/verify.py"}, c.args...)...)
		if out, err := verify.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), c.want) {
			t.Errorf("examples/audit/verify.py %s: %v\n%s\nwant\n%s", c.args[0], err, out, c.want)
		}
	}
}
