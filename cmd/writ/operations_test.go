// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/writ-dev/writ/internal/testenv"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// site is what docs/operations.md is about: an agent and a collector, each a process of
// its own, in one directory.
type site struct {
	t    testing.TB
	dir  string
	env  []string
	conn *grpc.ClientConn
	// blocks are those of the page that were not run yet, by their heading.
	blocks    map[string][]string
	processes map[string]*exec.Cmd
	admin     map[string]string
	// lost is the name of a ledger that is gone.
	lost string
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: testenv.Dir(t), blocks: map[string][]string{}, processes: map[string]*exec.Cmd{}, admin: map[string]string{}}
	s.admin["agent"], s.admin["collector"] = "http://"+testenv.Address(t), "http://"+testenv.Address(t)
	s.env = append(os.Environ(), "COLLECTOR=unix:"+s.path("c"), "WRIT_APPROVER_KEY=ops.key",
		"AGENT_ADMIN="+s.admin["agent"], "COLLECTOR_ADMIN="+s.admin["collector"])
	writePage(t, "approvals.md", s.path("bundle"))
	key := strings.ReplaceAll(strings.TrimSpace(standardOutput(t, "approvals", "key", "ops", s.path("ops.key"))), "\n", ", ")
	public, _, _ := strings.Cut(key, ", seal_key")
	s.write("collector.yaml", fmt.Sprintf(`data_dir: collector
listener: unix:%[1]s/c
admin: %[2]s
agents_file: agents
silence: 3s
operators: [{all_tenants: true, %[3]s}]
`, s.dir, strings.TrimPrefix(s.admin["collector"], "http://"), public))
	s.write("agent.yaml", fmt.Sprintf(`data_dir: agent
bundle_dir: bundle
listeners: {envoy: "unix:%[1]s/e", planner: "unix:%[1]s/p", admin: %[2]q}
identity: {workloads: [{spiffe_id: "spiffe://example.org/planner", uid: %[3]d, tenant: acme, roles: [clerk]}]}
approvers: [{all_tenants: true, roles: [operator], %[4]s}]
ledger: {origin: example.org/agent/desk, heartbeat: 1s}
collector: {address: "unix:%[1]s/c", public_key_file: collector.vkey, acknowledge_timeout: 5s}
`, s.dir, strings.TrimPrefix(s.admin["agent"], "http://"), os.Getuid(), key))
	var err error
	if s.conn, err = grpc.NewClient("unix:"+s.path("p"), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) log(name string) string {
	raw, err := os.ReadFile(s.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// start starts "agent" or "collector", and waits until its admin address answers.
func (s *site) start(name string) {
	s.t.Helper()
	log, err := os.OpenFile(s.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	p := exec.Command("writ", name, "--config", name+".yaml")
	p.Dir, p.Stdout, p.Stderr, p.SysProcAttr = s.dir, log, log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.processes[name] = p
	s.t.Cleanup(func() { s.end(name, syscall.SIGKILL) })
	s.until(name+" serves", func() bool {
		_, err := fetch(s.admin[name] + "/livez")
		return err == nil
	})
}

// end ends a process, if it runs, and says what it took.
func (s *site) end(name string, how syscall.Signal) *os.ProcessState {
	p := s.processes[name]
	if p == nil {
		return nil
	}
	delete(s.processes, name)
	_ = p.Process.Signal(how)
	if err := p.Wait(); err != nil && how != syscall.SIGKILL {
		s.t.Errorf("the %s ends with %v\n%s", name, err, s.log(name))
	}
	return p.ProcessState
}

func (s *site) stop(name string) *os.ProcessState { return s.end(name, os.Interrupt.(syscall.Signal)) }

// until waits for something that another process does.
func (s *site) until(what string, done func() bool) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !done(); {
		select {
		case <-deadline:
			s.t.Fatalf("not in a minute: %s\nagent: %s\ncollector: %s", what, s.log("agent"), s.log("collector"))
		case <-tick.C:
		}
	}
}

func fetch(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return "\n" + string(text), err
}

// metric waits until a process shows a line like this.
func (s *site) metric(name, line string) {
	s.t.Helper()
	s.until(name+" shows "+line, func() bool {
		text, err := fetch(s.admin[name] + "/metrics")
		return err == nil && strings.Contains(text, "\n"+line+"\n")
	})
}

// pay asks for a decision.
func (s *site) pay() *writv1.Decision {
	response, err := writv1.NewToolServiceClient(s.conn).Authorize(s.t.Context(), &writv1.AuthorizeRequest{
		Envelope: &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: "payouts.pay", Args: &writv1.Json{Text: []byte(small)}}},
	}, grpc.WaitForReady(true))
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.log("agent"))
	}
	return response.GetDecision()
}

// allowed waits until a call is allowed.
func (s *site) allowed() {
	s.t.Helper()
	s.until("a call is allowed", func() bool { return s.pay().GetVerdict() == writv1.Verdict_VERDICT_ALLOW })
}

// acknowledged waits until the collector has all that the agent has.
func (s *site) acknowledged() {
	s.t.Helper()
	s.until("nothing is behind", func() bool {
		text, err := fetch(s.admin["agent"] + "/metrics")
		return err == nil && strings.Contains(text, "\nwrit_collector_lag_records 0\n") && strings.Contains(text, "\nwrit_collector_connected 1\n")
	})
}

// sh runs commands as a shell does, and returns what they print.
func (s *site) sh(script string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	command.Dir, command.Env = s.dir, s.env
	if origin, err := os.ReadFile(s.path("agent/ledger/incarnation")); err == nil {
		command.Env = append(slices.Clone(s.env), "ORIGIN="+strings.TrimSpace(string(origin)), "LOST="+s.lost)
	}
	out, err := command.CombinedOutput()
	return string(out), err
}

// must is sh, of what must work.
func (s *site) must(script string) string {
	s.t.Helper()
	out, err := s.sh(script)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// do runs the next block under a heading of the page, whose output must have this.
func (s *site) do(heading string, want ...string) {
	s.t.Helper()
	left := s.blocks[heading]
	if len(left) == 0 {
		s.t.Fatalf("the page has no further commands under %q", heading)
	}
	s.blocks[heading] = left[1:]
	out := s.must(left[0])
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.t.Errorf("%s\n%sprints\n%s\nwithout %q", heading, left[0], out, w)
		}
	}
}

// origin is that of the agent's ledger now.
func (s *site) origin() string {
	return strings.TrimSpace(s.must("cat agent/ledger/incarnation"))
}

var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// read takes the page's blocks, each under the heading before it.
func (s *site) read(page string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, at := range shell.FindAllSubmatchIndex(text, -1) {
		over := heading.FindAllSubmatch(text[:at[0]], -1)
		title := string(over[len(over)-1][1])
		s.blocks[title] = append(s.blocks[title], string(text[at[2]:at[3]]))
	}
}

func TestAnOperatorsDrillIsAsThePageSays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.read("operations.md")
	s.begin()
	for _, part := range []func(){s.look, s.backUp, s.putBack, s.rollBack, s.loseVolume, s.rotateKeys, s.retire} {
		part()
	}
	for heading, left := range s.blocks {
		if len(left) > 0 {
			t.Errorf("commands under %q were not run: %q", heading, left)
		}
	}
}

// begin has the agent served by the collector, which knows it, and one call stopped.
func (s *site) begin() {
	s.t.Helper()
	s.start("collector")
	s.must("cp collector/collector.vkey collector.vkey")
	s.start("agent")
	s.do("A new agent")
	s.allowed()
	s.acknowledged()
}

// look runs what looks, and sees a stop.
func (s *site) look() {
	s.t.Helper()
	s.must("writ stop --collector $COLLECTOR --tool payouts.other --for 1h --why drill")
	s.metric("agent", "writ_stops_in_force 1")
	s.do("Look", "writ_collector_streams 1", "writ_collector_log_differs 0", "writ_ledger_available 1", "writ_stops_in_force 1", "heard", s.origin())
	s.do("Stops are in force", "payouts.other", "drill")
	s.do("The ledger is unavailable", "verified")
	s.do("Reads are not recorded", "verified")
}

// backUp makes both kinds of copies.
func (s *site) backUp() {
	s.t.Helper()
	s.do("While it runs", "verified")
	s.acknowledged()
	s.stop("collector")
	s.do("While it is stopped", "verified")
	s.do("Reads are not recorded")
	s.start("collector")
	s.allowed()
	s.acknowledged()
}

// putBack puts the older copy back, under the log that went on; and then an older log.
func (s *site) putBack() {
	s.t.Helper()
	s.stop("collector")
	s.must("cp collector/head_log/tiles/checkpoint kept; cp collector/head_log/log.vkey kept.vkey")
	s.do("Put a copy back")
	s.must("cp -a collector.lost/head_log collector/")
	s.start("collector")
	s.metric("collector", "writ_collector_log_differs 1")
	s.acknowledged()
	if out, err := s.sh("writ verify --store collector"); err == nil || !strings.Contains(out, "the log is not the store's") {
		s.t.Errorf("a store that was put back under its log: %v\n%s", err, out)
	}
	s.stop("collector")
	s.do("The collector's log differs")
	s.start("collector")
	s.allowed()
	s.acknowledged()
	s.metric("collector", "writ_collector_log_differs 0")
	s.do("Put a copy back", "verified")
	s.stop("collector")
	s.must("mv collector collector.good; cp -a backup.stopped collector")
	s.start("collector")
	s.allowed()
	s.acknowledged()
	s.stop("collector")
	if out, err := s.sh("writ verify --store collector --log-key kept.vkey --checkpoint kept"); err == nil {
		s.t.Errorf("a log that was put back goes on from a checkpoint that is younger than the copy:\n%s", out)
	}
	s.must("mv collector collector.older; mv collector.good collector")
	s.start("collector")
	s.allowed()
	s.acknowledged()
}

// rollBack puts an older copy of the agent's directory back, and then the newest.
func (s *site) rollBack() {
	s.t.Helper()
	const rehearse = "Rehearse a rollback"
	s.stop("agent")
	s.do(rehearse)
	s.start("agent")
	s.allowed()
	s.acknowledged()
	s.stop("agent")
	s.do(rehearse)
	s.start("agent")
	s.metric("collector", `writ_collector_findings{finding="rollback"} 1`)
	if reason := s.pay().GetReason(); reason != writv1.Reason_REASON_LEDGER_NOT_ACKNOWLEDGED {
		s.t.Errorf("a call of an agent that was rolled back is answered with %v", reason)
	}
	s.do(rehearse, "rollback", "are held")
	s.stop("agent")
	s.do(rehearse)
	s.start("agent")
	s.allowed()
	s.acknowledged()
}

// loseVolume takes the agent's directory from it.
func (s *site) loseVolume() {
	s.t.Helper()
	s.lost = s.origin()
	s.end("agent", syscall.SIGKILL)
	s.must("rm -rf agent")
	s.start("agent")
	s.metric("collector", `writ_collector_findings{finding="unknown_key"} 2`) // the first was its first start's
	s.metric("collector", "writ_collector_silent_ledgers 1")
	s.do("An agent's volume is lost", "silent", s.lost)
	s.allowed()
	s.acknowledged()
	s.metric("collector", "writ_collector_silent_ledgers 0")
	s.metric("agent", "writ_stops_in_force 1")
}

// rotateKeys gives the agent and then the collector a new key.
func (s *site) rotateKeys() {
	s.t.Helper()
	s.acknowledged()
	s.stop("agent")
	was := s.origin()
	s.do("An agent's key")
	s.start("agent")
	s.do("An agent's key")
	s.allowed()
	if is := s.origin(); is == was {
		s.t.Errorf("the new ledger is %s, as before", is)
	}
	s.do("An agent's key", "verified")
	s.stop("collector")
	s.do("The collector's key")
	s.start("collector")
	if reason := s.pay().GetReason(); reason != writv1.Reason_REASON_LEDGER_NOT_ACKNOWLEDGED {
		s.t.Errorf("a call whose record another key acknowledges is answered with %v", reason)
	}
	s.do("The collector's key")
	s.stop("agent")
	s.start("agent")
	s.allowed()
}

// retire takes the agent out of service.
func (s *site) retire() {
	s.t.Helper()
	s.lost = s.origin()
	s.acknowledged()
	s.stop("agent")
	s.do("Take an agent out of service", "ended", "verified")
}

// BenchmarkASiteKeeps has an agent decide calls that wait for the collector, and says what
// a call leaves on both disks and takes of both processors: docs/operations.md.
func BenchmarkASiteKeeps(b *testing.B) {
	const calls, callers = 20_000, 32
	for b.Loop() {
		s := newSite(b)
		// One segment, which is not pruned: all bytes are counted.
		s.must("sed -i 's/heartbeat: 1s/heartbeat: 10s, segment_bytes: 1073741824/' agent.yaml")
		s.start("collector")
		s.must("cp collector/collector.vkey collector.vkey")
		s.start("agent")
		s.must("cat agent/ledger/log.vkey >> agents")
		s.allowed()
		began, group := time.Now(), errgroup.Group{}
		for range callers {
			group.Go(func() error {
				for range calls / callers {
					s.pay()
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		s.acknowledged()
		for _, name := range []string{"agent", "collector"} {
			state := s.stop(name)
			b.ReportMetric(float64((state.UserTime()+state.SystemTime()).Microseconds())/calls, name+"-cpu-µs/call")
		}
		for _, name := range []string{"agent/ledger", "collector/store.db", "collector/head_log"} {
			b.ReportMetric(s.bytes(name)/calls, filepath.Base(name)+"-B/call")
		}
		b.ReportMetric(calls/took.Seconds(), "calls/s")
		var stored struct{ Ledgers []struct{ Size float64 } }
		if err := json.Unmarshal([]byte(s.must("writ verify --store collector --output json")), &stored); err != nil || len(stored.Ledgers) == 0 { // the first is the agent's; the other that of the reads
			b.Fatal(stored, err)
		}
		b.ReportMetric(stored.Ledgers[0].Size/calls, "records/call")
	}
}

// bytes is what a file takes, or all files in a directory.
func (s *site) bytes(name string) (sum float64) {
	s.t.Helper()
	err := filepath.WalkDir(s.path(name), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += float64(info.Size())
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return sum
}
