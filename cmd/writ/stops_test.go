// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const small = `{"payee":"Stadtwerke","cents":4200}`

// openOperated runs an agent of the approvals' page with two operators: ops of all
// tenants, and tom of acme.
func openOperated(t *testing.T) (o *office, keys string) {
	t.Helper()
	keys = t.TempDir()
	key := func(user string) string {
		printed := standardOutput(t, "approvals", "key", user, filepath.Join(keys, user))
		return strings.ReplaceAll(strings.TrimSpace(printed), "\n", ", ")
	}
	o = openPage(t, "approvals.md", "spiffe://example.org/planner",
		"  - {all_tenants: true, roles: [operator], "+key("ops")+"}\n  - {tenant: acme, roles: [operator], "+key("tom")+"}\n")
	return o, keys
}

// stopAs runs a command of "writ stop" as an operator of an agent.
func (o *office) stopAs(key string, args ...string) (string, error) {
	o.t.Helper()
	return stopAt(o.t, append([]string{"--agent", o.socket, "--key", key}, args...)...)
}

// stopAt runs a command of "writ stop".
func stopAt(t testing.TB, args ...string) (string, error) {
	t.Helper()
	root, out := newRoot(), &strings.Builder{}
	root.SetArgs(append([]string{"stop"}, args...))
	root.SetOut(out)
	root.SetErr(&strings.Builder{})
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestTheCommandsOfTheStopPageDoWhatItShows(t *testing.T) {
	t.Parallel()
	o, keys := openOperated(t)
	page, err := os.ReadFile("../../docs/stop.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(page), "```console\n")
	shown, _, _ = strings.Cut(shown, "```")
	chance := regexp.MustCompile(`[0-9a-f]{32}|20[0-9TZ:-]{18,}`)
	id := ""
	for _, part := range strings.Split(shown, "$ ")[1:] {
		line, want, _ := strings.Cut(part, "\n")
		command, ok := strings.CutPrefix(line, "writ stop ")
		if !ok {
			continue
		}
		args := words(strings.ReplaceAll(command, "lift 7f0d", "lift "+id))
		got, err := o.stopAs(filepath.Join(keys, "ops"), args...)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if chance.ReplaceAllString(got, "_") != chance.ReplaceAllString(want, "_") {
			t.Errorf("%s prints\n%s\nthe page says\n%s", line, got, want)
		}
		if found := chance.FindAllString(got, -1); id == "" {
			id = found[len(found)-1]
			if reason := o.pay(small).GetDecision().GetReason(); reason != writv1.Reason_REASON_GRANT_STOPPED {
				t.Errorf("a stopped call is answered with %s", reason)
			}
		}
	}
	if verdict := o.pay(small).GetDecision().GetVerdict(); verdict != writv1.Verdict_VERDICT_ALLOW {
		t.Errorf("after the lift the call is answered with %s", verdict)
	}
	if listed := standardOutput(t, "records", "list", "--ledger", filepath.Join(o.dir, "data", "ledger"), "--kind", "stop", "-o", "json"); strings.Count(listed, `"kind":"STOP"`) != 2 {
		t.Errorf("the records of both orders:\n%s", listed)
	}
}

// words splits a command line at spaces, but for those within double quotes.
func words(line string) []string {
	found := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1)
	for i := range found {
		found[i] = strings.Trim(found[i], `"`)
	}
	return found
}

func TestOperatorsStopTheirOwnTenantOnly(t *testing.T) {
	t.Parallel()
	o, keys := openOperated(t)
	tom, ops := filepath.Join(keys, "tom"), filepath.Join(keys, "ops")
	for name, test := range map[string]struct {
		key, want string
		args      []string
	}{
		"nothing is named":            {ops, "nothing says which calls", nil},
		"all tenants by one's":        {tom, "not signed by an operator of these calls", []string{"--tool", "*"}},
		"another tenant":              {tom, "not signed by an operator of these calls", []string{"--tool", "*", "--tenant", "other"}},
		"by an approver":              {filepath.Join(o.dir, "bob"), "not signed by an operator", []string{"--tenant", "acme"}},
		"no tool's name":              {ops, "stop.scope.tool: does not match", []string{"--tool", "a b"}},
		"too long":                    {ops, "31 days", []string{"--tool", "*", "--for", "900h"}},
		"no time at all":              {ops, "a stop lasts a while", []string{"--tool", "*", "--for", "0s"}},
		"a lift of what is not there": {ops, "no stop begins with beef", []string{"lift", "beef"}},
		"a lift without an id":        {ops, "no stop begins with", []string{"lift", ""}},
	} {
		if _, err := o.stopAs(test.key, test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if verdict := o.pay(small).GetDecision().GetVerdict(); verdict != writv1.Verdict_VERDICT_ALLOW {
		t.Errorf("after all that the call is answered with %s", verdict)
	}
	text, err := o.stopAs(tom, "--tenant", "acme", "--why", "look\u202e", "-o", "json")
	var stops []struct {
		ID    string `json:"id"`
		Order struct {
			Operator string `json:"operator"`
		} `json:"order"`
	}
	if err != nil || json.Unmarshal([]byte(text), &stops) != nil || len(stops) != 1 || stops[0].Order.Operator != "tom" {
		t.Fatalf("JSON: %v\n%s", err, text)
	}
	if reason := o.pay(small).GetDecision().GetReason(); reason != writv1.Reason_REASON_GRANT_STOPPED {
		t.Errorf("a call of the stopped tenant is answered with %s", reason)
	}
	if list, err := o.stopAs(ops, "list"); err != nil || !strings.Contains(list, `look\u{202e}`) || !strings.Contains(list, "tenant acme") {
		t.Errorf("list: %v\n%s", err, list)
	}
	if _, err := o.stopAs(ops, "lift", stops[0].ID[:8]); err != nil {
		t.Errorf("an operator of all tenants cannot lift it: %v", err)
	}
}

func TestAnOperatorOfAllTenantsHasNoOtherRole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	config := `data_dir: d
bundle_dir: b
listeners: {envoy: "unix:/tmp/e"}
approvers: [{all_tenants: true, roles: [operator, treasurer], public_key: x}]
`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readAgentConfig(file); err == nil || !strings.Contains(err.Error(), "register another key") {
		t.Errorf("the configuration is taken: %v", err)
	}
}

// fleet is a collector with an operator, and agents that send it their ledgers.
type fleet struct {
	t           *testing.T
	dir, keys   string
	address     string
	public      string
	stopServing func()
}

func openFleet(t *testing.T) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &fleet{t: t, dir: dir, keys: t.TempDir(), address: "unix:" + filepath.Join(dir, "c")}
	printed := standardOutput(t, "approvals", "key", "ops", filepath.Join(f.keys, "ops"))
	f.public, _, _ = strings.Cut(strings.TrimPrefix(printed, "public_key: "), "\n")
	f.serve()
	t.Cleanup(func() { f.stopServing() })
	return f
}

// serve runs the collector until stopServing is called.
func (f *fleet) serve() {
	f.t.Helper()
	path := filepath.Join(f.dir, "collector.yaml")
	text := fmt.Sprintf("data_dir: store\nlistener: %q\nagents_file: agents\noperators: [{all_tenants: true, public_key: %q}]\n", f.address, f.public)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	config, err := readCollectorConfig(path)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- runCollector(ctx, config, slog.New(slog.DiscardHandler)) }()
	f.stopServing = sync.OnceFunc(func() {
		stop()
		if err := <-served; err != nil && !errors.Is(err, context.Canceled) {
			f.t.Error(err)
		}
	})
	eventually(f.t, "the collector serves", func() bool {
		_, err := f.stop("list")
		return err == nil
	})
}

func (f *fleet) stop(args ...string) (string, error) {
	f.t.Helper()
	return stopAt(f.t, append([]string{"--collector", f.address, "--key", filepath.Join(f.keys, "ops")}, args...)...)
}

// join runs an agent that sends its ledger to the collector, with approvers.
func (f *fleet) join(approvers string) *office {
	f.t.Helper()
	o := openPage(f.t, "approvals.md", "spiffe://example.org/planner", approvers+
		fmt.Sprintf("collector: {address: %q, public_key_file: %q}\n", f.address, filepath.Join(f.dir, "store", "collector.vkey")))
	f.know(filepath.Join(o.dir, "data", "ledger", "log.vkey"))
	return o
}

// know makes an agent's key known to the collector.
func (f *fleet) know(path string) {
	f.t.Helper()
	key, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(f.dir, "agents"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := file.Write(append(key, '\n')); err != nil {
		f.t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		f.t.Fatal(err)
	}
}

// stopped says whether a usual call is denied because an operator stopped it.
func (o *office) stopped() bool {
	return o.pay(small).GetDecision().GetReason() == writv1.Reason_REASON_GRANT_STOPPED
}

func TestAnOrderAtTheCollectorReachesEveryAgentThatKnowsItsOperator(t *testing.T) {
	t.Parallel()
	f := openFleet(t)
	ops := "  - {all_tenants: true, roles: [operator], public_key: " + f.public + "}\n"
	first, second, stranger := f.join(ops), f.join(ops), f.join("")
	eventually(t, "all send their ledgers", func() bool {
		return strings.Count(standardOutput(t, "records", "list", "--collector", f.address, "--kind", "start", "-o", "json"), `"START"`) == 3
	})
	if out, err := f.stop("--tool", "payouts.pay"); err != nil || !strings.Contains(out, "agents   3 connected") {
		t.Fatalf("%v\n%s", err, out)
	}
	began := time.Now()
	eventually(t, "both deny", func() bool { return first.stopped() && second.stopped() })
	t.Logf("%s after the answer both deny", time.Since(began))
	eventually(t, "the third says why it does not", func() bool {
		return strings.Contains(stranger.log(), "STOP_NOT_OPERATOR")
	})
	if stranger.stopped() {
		t.Error("an agent takes the order of somebody who is not its operator")
	}
	late := f.join(ops)
	eventually(t, "one that comes later denies", late.stopped)
	list, err := f.stop("list")
	if err != nil || !strings.Contains(list, "tool payouts.pay") {
		t.Fatalf("list: %v\n%s", err, list)
	}
	id := regexp.MustCompile(`([0-9a-f]{32})  stopped .* payouts.pay`).FindStringSubmatch(list)[1]

	f.stopServing()
	if _, err := f.stop("list"); err == nil {
		t.Fatal("the collector is still there")
	}
	if !first.stopped() {
		t.Error("without the collector the agent goes on")
	}
	if _, err := first.stopAs(filepath.Join(f.keys, "ops"), "lift", id); err != nil || first.stopped() {
		t.Errorf("without the collector a stop cannot be lifted at the agent: %v", err)
	}
	f.serve()
	if _, err := f.stop("lift", id); err != nil {
		t.Fatalf("the collector has forgotten the stop: %v", err)
	}
	eventually(t, "all go on", func() bool { return !first.stopped() && !second.stopped() && !late.stopped() })
}
