// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// sharedBundle has two tools with one shared budget each: one whose calls do not wait for
// the collector, and one whose calls do.
var sharedBundle = map[string]string{
	"bundle.yaml":    "name: desk\n",
	"catalogue.yaml": "upstreams: []\n",
	"protos/desk.proto": `syntax = "proto3";
package desk.v1;
import "writ/v1/options.proto";
service Desk {
  // Look something up.
  rpc Look(LookRequest) returns (LookResponse) {
    option (writ.v1.tool) = {name: "desk.look" risk: RISK_LOW effect: TOOL_EFFECT_READ};
  }
  // Change something.
  rpc Change(LookRequest) returns (LookResponse) {
    option (writ.v1.tool) = {name: "desk.change" risk: RISK_LOW effect: TOOL_EFFECT_WRITE};
  }
}
message LookRequest { string what = 1; }
message LookResponse { string found = 1; }
`,
	"grants/all.yaml": "grants: [{name: all, effect: GRANT_EFFECT_ALLOW, principals: {roles: [clerk]}, tools: [\"*\"]}]\n",
	"budgets/all.yaml": `budgets:
  - {name: looks, tools: [desk.look], scopes: [BUDGET_SCOPE_TENANT], dimension: DIMENSION_CALLS, limit: 40,
     calendar: {unit: CALENDAR_UNIT_MONTH}, shared: {lease: 5s}}
  - {name: changes, tools: [desk.change], scopes: [BUDGET_SCOPE_TENANT], dimension: DIMENSION_CALLS, limit: 20,
     calendar: {unit: CALENDAR_UNIT_MONTH}, shared: {lease: 5s, report: LEASE_REPORT_FIRST}}
`,
}

// till is an agent in a process of its own.
type till struct {
	t       *testing.T
	dir     string
	config  string
	process *exec.Cmd
	conn    *grpc.ClientConn
	said    strings.Builder
}

// openTill runs an agent of the shared bundle that sends its ledger to the fleet's
// collector.
func (f *fleet) openTill() *till {
	f.t.Helper()
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	i := &till{t: f.t, dir: dir, config: filepath.Join(dir, "agent.yaml")}
	writeBundle(f.t, filepath.Join(dir, "bundle"), sharedBundle)
	text := fmt.Sprintf(`data_dir: %[1]s/data
bundle_dir: %[1]s/bundle
listeners: {envoy: "unix:%[1]s/e", planner: "unix:%[1]s/p"}
identity: {workloads: [{spiffe_id: "spiffe://example.org/planner", uid: %[2]d, tenant: acme, roles: [clerk]}]}
collector: {address: %[3]q, public_key_file: %[4]q, acknowledge_timeout: 2s}
`, dir, os.Getuid(), f.address, filepath.Join(f.dir, "store", "collector.vkey"))
	if err := os.WriteFile(i.config, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	i.start()
	f.know(filepath.Join(dir, "data", "ledger", "log.vkey"))
	f.t.Cleanup(i.kill)
	return i
}

func writeBundle(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// start starts the agent's process, and waits until it serves.
func (i *till) start() {
	i.t.Helper()
	i.process = exec.Command("writ", "agent", "--config", i.config)
	i.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	i.process.Stderr = &i.said
	if err := i.process.Start(); err != nil {
		i.t.Fatal(err)
	}
	if i.conn != nil {
		_ = i.conn.Close()
	}
	var err error
	if i.conn, err = grpc.NewClient("unix:"+filepath.Join(i.dir, "p"), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		i.t.Fatal(err)
	}
	if _, err := grpc_health_v1.NewHealthClient(i.conn).Check(i.t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		i.t.Fatal(err)
	}
}

// end ends it with SIGKILL.
func (i *till) end() {
	_ = i.process.Process.Kill()
	_ = i.process.Wait()
}

// kill ends it with SIGKILL, if it runs, and the connection to it.
func (i *till) kill() {
	if i.process == nil {
		return
	}
	i.end()
	_ = i.conn.Close()
	i.process = nil
	if i.t.Failed() {
		i.t.Logf("the agent said\n%s", i.said.String())
	}
}

// stop ends it in good order.
func (i *till) stop() {
	i.t.Helper()
	if err := i.process.Process.Signal(os.Interrupt); err != nil {
		i.t.Fatal(err)
	}
	if err := i.process.Wait(); err != nil {
		i.t.Fatalf("%v\n%s", err, i.said.String())
	}
	_ = i.conn.Close()
	i.process = nil
}

// call asks for a call of a tool, and returns why it is denied; none is an ALLOW.
func (i *till) call(tool string) writv1.Reason {
	i.t.Helper()
	response, err := writv1.NewToolServiceClient(i.conn).Authorize(i.t.Context(), &writv1.AuthorizeRequest{
		Envelope: &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: tool, Args: &writv1.Json{Text: []byte(`{"what":"it"}`)}}},
	})
	if err != nil {
		i.t.Fatal(err)
	}
	if response.GetDecision().GetVerdict() == writv1.Verdict_VERDICT_ALLOW {
		return writv1.Reason_REASON_UNSPECIFIED
	}
	return response.GetDecision().GetReason()
}

// calls makes a call until it is allowed, n times.
func (i *till) calls(tool string, n int) {
	i.t.Helper()
	for range n {
		eventually(i.t, "a call of "+tool+" is allowed", func() bool { return i.call(tool) == writv1.Reason_REASON_UNSPECIFIED })
	}
}

// leased returns what "writ budgets" says of the agent's slice.
func (i *till) leased(budget string) (leased, taken int) {
	i.t.Helper()
	var all []struct {
		Budget, Leased, Taken string
	}
	if err := json.Unmarshal([]byte(standardOutput(i.t, "budgets", "--config", i.config, "-o", "json")), &all); err != nil {
		i.t.Fatal(err)
	}
	for _, s := range all {
		if s.Budget == budget {
			leased, _ = strconv.Atoi(s.Leased)
			taken, _ = strconv.Atoi(s.Taken)
		}
	}
	return leased, taken
}

// lastAsk returns when the agent, which does not run, recorded its last ask.
func (i *till) lastAsk() time.Time {
	i.t.Helper()
	dir := filepath.Join(i.dir, "data", "ledger")
	verifier, err := query.LedgerKey(dir)
	if err != nil {
		i.t.Fatal(err)
	}
	var last time.Time
	err = ledger.NewDirReader(dir, verifier).Read(func(_ uint64, raw []byte) error {
		record, body := &writv1.Record{}, &writv1.LeaseRecord{}
		if err := canonical.Unmarshal(raw, record); err != nil {
			return err
		}
		if record.GetKind() != writv1.RecordKind_RECORD_KIND_LEASE {
			return nil
		}
		if err := canonical.Unmarshal(record.GetBody(), body); err != nil {
			return err
		}
		if body.GetAsk() != nil {
			last = time.Unix(0, int64(record.GetTimeUnixNs())) //nolint:gosec // a time
		}
		return nil
	})
	if err != nil || last.IsZero() {
		i.t.Fatalf("the last ask: %s, %v", last, err)
	}
	return last
}

const (
	allowed   = writv1.Reason_REASON_UNSPECIFIED
	noLease   = writv1.Reason_REASON_BUDGET_NO_LEASE
	exhausted = writv1.Reason_REASON_BUDGET_EXHAUSTED
)

func TestAgentsTogetherNeverPassTheLimitOfASharedBudget(t *testing.T) {
	t.Parallel()
	f := openFleet(t)
	first, second := f.openTill(), f.openTill()
	if reason := first.call("desk.look"); reason != noLease {
		t.Errorf("the first call, before there is a slice: %s", reason)
	}
	first.calls("desk.look", 5)
	second.calls("desk.look", 4)

	// A process that is killed goes on where its ledger ends.
	first.kill()
	first.start()
	first.calls("desk.look", 1)
	taken := 10

	// Without the collector each goes on from its slice, and then denies.
	f.stopServing()
	for _, i := range []*till{first, second} {
		eventually(t, "an agent without collector has used up its slice", func() bool {
			reason := i.call("desk.look")
			if reason == allowed {
				taken++
			}
			return reason == noLease
		})
	}
	if taken == 10 || taken > 40 {
		t.Errorf("without the collector %d calls were allowed", taken-10)
	}
	f.serve()
	eventually(t, "all of the budget is used", func() bool {
		for _, i := range []*till{first, second} {
			if i.call("desk.look") == allowed {
				taken++
			}
		}
		return taken >= 40
	})
	for range 20 {
		for _, i := range []*till{first, second} {
			if i.call("desk.look") == allowed {
				t.Fatalf("a call is allowed after %d", taken)
			}
		}
	}
	eventually(t, "both know that it is used up", func() bool {
		return first.call("desk.look") == exhausted && second.call("desk.look") == exhausted
	})
	_, one := first.leased("looks")
	_, other := second.leased("looks")
	if one+other != 40 || taken != 40 {
		t.Errorf("%d calls were allowed, the ledgers tell of %d and %d, the limit is 40", taken, one, other)
	}
	replayed := standardOutput(t, "replay", "--ledger", filepath.Join(first.dir, "data", "ledger"), "--bundle", filepath.Join(first.dir, "bundle"))
	if !strings.Contains(replayed, "differs     0") {
		t.Errorf("replayed:\n%s", replayed)
	}
}

func TestTheSliceOfAKilledAgentComesBackWhenItHasLapsed(t *testing.T) {
	t.Parallel()
	f := openFleet(t)
	gone, here := f.openTill(), f.openTill()
	gone.calls("desk.change", 3)
	gone.kill()
	asked := gone.lastAsk()
	leased, spent := gone.leased("changes")
	if spent != 3 || leased <= 3 {
		t.Fatalf("the killed agent has taken %d of its slice of %d", spent, leased)
	}
	var total int
	draw := func() writv1.Reason {
		reason := here.call("desk.change")
		if reason == allowed {
			total++
		}
		return reason
	}
	eventually(t, "what the killed agent does not hold is used up", func() bool { draw(); return total == 20-leased })
	var back time.Time
	eventually(t, "all of the budget is used", func() bool {
		if draw() == allowed && back.IsZero() {
			back = time.Now()
		}
		return total+spent == 20
	})
	if after := back.Sub(asked); after < 6*time.Second {
		t.Errorf("the slice of a killed agent is given to another %s after it was asked for: the lease is 5 s and the skew 1 s", after)
	}
	eventually(t, "the other knows that it is used up", func() bool { return draw() == exhausted })
	if total+spent != 20 {
		t.Errorf("%d and %d calls were allowed, the limit is 20", total, spent)
	}
	// It comes back, and has what it had.
	gone.start()
	for range 5 {
		if gone.call("desk.change") == allowed {
			t.Error("the killed agent is back and draws on what it had")
		}
	}
}

// serveApart runs the collector in a process of its own, which is to be killed.
func (f *fleet) serveApart() *exec.Cmd {
	f.t.Helper()
	collector := exec.Command("writ", "collector", "--config", filepath.Join(f.dir, "collector.yaml"))
	collector.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := collector.Start(); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, "the collector serves", func() bool {
		_, err := f.stop("list")
		return err == nil
	})
	return collector
}

// hammer makes calls on all agents at once until the result is called, which returns how
// many were allowed. An agent that is not there allows none.
func hammer(t *testing.T, tills []*till) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var allowed atomic.Int64
	for _, i := range tills {
		client := writv1.NewToolServiceClient(i.conn)
		all.Go(func() {
			for ctx.Err() == nil {
				// The answer is waited for: what is allowed is counted.
				response, err := client.Authorize(t.Context(), &writv1.AuthorizeRequest{
					Envelope: &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "desk.look", Args: &writv1.Json{Text: []byte(`{"what":"it"}`)}}},
				})
				if err == nil && response.GetDecision().GetVerdict() == writv1.Verdict_VERDICT_ALLOW {
					allowed.Add(1)
				}
			}
		})
	}
	return func() int64 {
		cancel()
		all.Wait()
		return allowed.Load()
	}
}

func TestWhoeverIsKilledTheLimitOfASharedBudgetStands(t *testing.T) {
	t.Parallel()
	f := openFleet(t)
	f.stopServing()
	collector := f.serveApart()
	t.Cleanup(func() { _, _ = collector.Process.Kill(), collector.Wait() })
	tills := []*till{f.openTill(), f.openTill(), f.openTill()}
	taken := func() (sum int) {
		for _, i := range tills {
			_, taken := i.leased("looks")
			sum += taken
		}
		return sum
	}
	var allowed int64
	for round := range 4 {
		stop := hammer(t, tills)
		before := taken()
		eventually(t, "calls go on", func() bool { return taken() > before || taken() == 40 })
		if round%2 == 0 {
			_, _ = collector.Process.Kill(), collector.Wait()
			collector = f.serveApart()
		} else {
			tills[round/2].end()
			allowed += stop()
			tills[round/2].start()
			continue
		}
		allowed += stop()
	}
	stop := hammer(t, tills)
	eventually(t, "all of the budget is used", func() bool { return taken() >= 40 })
	// Killed agents know of calls that they could not answer any more.
	if allowed += stop(); allowed > 40 || taken() != 40 {
		t.Errorf("%d calls were allowed, the ledgers tell of %d, the limit is 40", allowed, taken())
	}
}

func TestAnAgentThatStopsGivesItsSliceBack(t *testing.T) {
	t.Parallel()
	f := openFleet(t)
	first, second := f.openTill(), f.openTill()
	first.calls("desk.look", 2)
	if leased, taken := first.leased("looks"); taken != 2 || leased <= 2 {
		t.Fatalf("the first has taken %d of its slice of %d", taken, leased)
	}
	first.stop()
	second.calls("desk.look", 38)
	if reason := second.call("desk.look"); reason == allowed {
		t.Error("more than the limit is allowed")
	}
}

func TestASharedBudgetTakesACollector(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeBundle(t, filepath.Join(dir, "bundle"), sharedBundle)
	file := filepath.Join(dir, "agent.yaml")
	text := fmt.Sprintf("data_dir: %[1]s/data\nbundle_dir: %[1]s/bundle\nlisteners: {envoy: \"unix:%[1]s/e\"}\n", dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	root := newRoot()
	root.SetArgs([]string{"agent", "--config", file})
	root.SetErr(&strings.Builder{})
	err := root.ExecuteContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "agents share the budget changes, and this one has no collector") {
		t.Errorf("an agent without collector begins: %v", err)
	}
}

func TestWhatASharedBudgetCannotBe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ is, want string }{
		"rolling":            {"rolling: 86400s, shared: {}", "a shared budget has a window of a minute or more, or a calendar"},
		"of half a minute":   {"window: 30s, shared: {}", "a shared budget has a window of a minute or more, or a calendar"},
		"soft":               {"window: 60s, cap: BUDGET_CAP_SOFT, shared: {}", "a shared budget has a hard cap and no alert_percents"},
		"with alerts":        {"window: 60s, alert_percents: [50], shared: {}", "a shared budget has a hard cap and no alert_percents"},
		"leased for an hour": {"window: 60s, shared: {lease: 3601s}", "less than or equal to"},
		"of a session":       {"endless: true, shared: {}, scopes: [BUDGET_SCOPE_SESSION]", "a session and its run are at one agent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			files := maps.Clone(sharedBundle)
			scopes := ", scopes: [BUDGET_SCOPE_TENANT]"
			if strings.Contains(c.is, "scopes") {
				scopes = ""
			}
			files["budgets/all.yaml"] = "budgets: [{name: b, tools: [\"*\"], dimension: DIMENSION_CALLS, limit: 1, " + c.is + scopes + "}]\n"
			writeBundle(t, dir, files)
			_, err := bundles.LoadDir(t.Context(), dir, bundles.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestThePageShowsASharedBudgetThatLoadsAndPlays(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/budgets.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## Budgets that agents share")
	_, budget, _ := strings.Cut(section, "```yaml\n")
	budget, _, _ = strings.Cut(budget, "```")
	_, shown, _ := strings.Cut(section, "```text\n")
	shown, _, _ = strings.Cut(shown, "```")
	dir := t.TempDir()
	writePage(t, "budgets.md", dir)
	writeBundle(t, dir, map[string]string{"budgets/all.yaml": budget, "scenarios/budgets.yaml": `description: x
principal: {user: ida, roles: [editor], tenant: desk}
scenarios:
  - name: whoever plays a bundle has the whole of it
    steps:
      - call: {tool: fees.pay, args: {fees: [{payee: ann, cents: 40000}]}, want: {verdict: VERDICT_ALLOW}}
      - call: {tool: fees.pay, args: {fees: [{payee: ann, cents: 40000}]}, want: {verdict: VERDICT_DENY, reason: REASON_BUDGET_EXHAUSTED}}
`})
	loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now) {
		if len(p.Differences) > 0 {
			t.Error(p.Differences)
		}
	}
	leased := int64(50_000_000_000)
	var out strings.Builder
	err = printStandings(&out, outputText, []*writv1.BudgetStanding{{
		Budget: "fees", Key: []string{"desk"}, Dimension: writv1.Dimension_DIMENSION_MONEY, Limit: 500_000_000_000, Leased: &leased,
		Taken: 40_000_000_000, Left: 10_000_000_000, RefillTime: timestamppb.New(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)),
	}})
	if err != nil || out.String() != shown {
		t.Errorf("%v: printed\n%s\nthe page shows\n%s", err, out.String(), shown)
	}
}
