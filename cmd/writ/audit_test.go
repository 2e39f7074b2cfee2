// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/writ-dev/writ/internal/testenv"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// audited is what an auditor has before them: the directories that docs/audit.md names,
// of an agent and a collector that ran.
type audited struct {
	dir string
	// decision is the id of a decision that was made.
	decision string
}

// path is that of a file or directory.
func (a *audited) path(name string) string { return filepath.Join(a.dir, name) }

// playForAudit has an agent decide, and a collector take it, until both are stopped.
func playForAudit(t *testing.T) *audited {
	t.Helper()
	a := &audited{dir: testenv.Dir(t)}
	for name, where := range map[string]string{"examples": "../../examples", "ledger": "../../ledger"} {
		target, err := filepath.Abs(where)
		if err == nil {
			err = os.Symlink(target, a.path(name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	stop := a.collect(t, "")
	t.Run("play", func(t *testing.T) { a.play(t, nil) })
	stop()
	return a
}

// collect runs a collector, with more in its configuration, until the result is called.
func (a *audited) collect(t *testing.T, more string) (stop func()) {
	t.Helper()
	config := fmt.Sprintf("data_dir: %[1]s/collector\nlistener: unix:%[1]s/c\nagents_file: %[1]s/agents\n", a.dir) + more
	if err := os.WriteFile(a.path("collector.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var said lockedText
	go func() {
		root := newRoot()
		root.SetArgs([]string{"collector", "--config", a.path("collector.yaml")})
		root.SetErr(&said)
		ended <- root.ExecuteContext(ctx)
	}()
	conn, err := grpc.NewClient("unix:"+a.path("c"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the collector: %v\n%s", err, said.String())
		}
	}
}

// play has an agent make decisions that the collector acknowledges, and keeps its ledger;
// more is what is done before the agent is stopped, pay is one more decision.
func (a *audited) play(t *testing.T, more func(t *testing.T, pay func() *writv1.Decision)) {
	t.Helper()
	o := openPage(t, "approvals.md", "spiffe://example.org/planner",
		fmt.Sprintf("collector: {address: \"unix:%[1]s/c\", public_key_file: %[1]s/collector/collector.vkey, acknowledge_timeout: 5s}\n", a.dir))
	own := filepath.Join(o.dir, "data", "ledger")
	key, err := os.ReadFile(filepath.Join(own, "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(a.path("agents"), key, 0o600), os.WriteFile(a.path("agent.vkey"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	const small = `{"payee":"Nordwerk","cents":100}`
	deadline := time.Now().Add(time.Minute)
	for a.decision == "" {
		response := o.pay(small)
		switch decision := response.GetDecision(); {
		case decision.GetVerdict() == writv1.Verdict_VERDICT_ALLOW:
			a.decision = response.GetDecisionId()
		case decision.GetReason() != writv1.Reason_REASON_LEDGER_NOT_ACKNOWLEDGED || time.Now().After(deadline):
			t.Fatalf("the verdict is %v\n%s", decision, o.log())
		}
	}
	o.pay(large)
	if more != nil {
		more(t, func() *writv1.Decision { return o.pay(small).GetDecision() })
	}
	if err := os.CopyFS(a.path("agent/ledger"), os.DirFS(own)); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"log.vkey": "log.vkey", "kept": "tiles/checkpoint"} {
		raw, err := os.ReadFile(a.path("collector/head_log/" + from))
		if err == nil {
			err = os.WriteFile(a.path(name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// run runs a line as a shell does, in the auditor's directory.
func (a *audited) run(t *testing.T, line string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", line)
	command.Dir, command.Env = a.dir, append(os.Environ(), "DECISION="+a.decision)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	return out.String(), err
}

func TestAnAuditorsDayIsAsThePageSays(t *testing.T) {
	t.Parallel()
	a := playForAudit(t)
	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, block := range shell.FindAllSubmatch(page, -1) {
		for line := range strings.Lines(string(block[1])) {
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			commands++
			if out, err := a.run(t, line); err != nil {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		}
	}
	if commands < 10 {
		t.Errorf("the page has %d commands, fewer than it had", commands)
	}
	a.forgeProof(t)
	a.rewrite(t)
}

// forgeProof changes each line of the proof of a head.
func (a *audited) forgeProof(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile(a.path("decision.proof"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(raw), "\n")
	for i, line := range lines {
		if len(line) < 4 {
			continue
		}
		forged := []byte(line)
		forged[len(forged)-3] ^= 1
		text := strings.Join(lines[:i], "") + string(forged) + strings.Join(lines[i+1:], "")
		if err := os.WriteFile(a.path("forged.proof"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := a.run(t, "python3 examples/audit/verify.py proof forged.proof log.vkey agent.vkey"); err == nil {
			t.Errorf("a proof with another line %d is taken:\n%s\n%s", i, out, text)
		}
	}
	if out, err := a.run(t, "writ log prove --store collector 00000000000000000000000000000000"); err == nil || !strings.Contains(out, "no such decision") {
		t.Errorf("a decision that there is not: %v\n%s", err, out)
	}
}

// rewrite changes a bit of the ledger's oldest segment, and one of the collector's log;
// both readers say so.
func (a *audited) rewrite(t *testing.T) {
	t.Helper()
	for pattern, lines := range map[string][]string{
		"agent/ledger/*.dlog": {"writ verify --ledger agent/ledger", "python3 examples/audit/verify.py ledger agent/ledger agent.vkey"},
		"collector/head_log/tiles/tile/0/000.p/*": {
			"writ verify --store collector", "python3 examples/audit/verify.py log collector/head_log/tiles log.vkey",
		},
	} {
		files, err := filepath.Glob(a.path(pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)/2] ^= 1
			if err := os.WriteFile(file, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, line := range lines {
			out, err := a.run(t, line)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "NOT verified") {
				t.Errorf("%s, of what was changed: %v\n%s", line, err, out)
			}
		}
	}
}

func TestTheOtherReaderRefusesAKitThatExpectsSomethingElse(t *testing.T) {
	t.Parallel()
	a := &audited{dir: t.TempDir()}
	script, err := filepath.Abs("../../examples/audit/verify.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"record-valid-start.txt", "segment-crc-sum.txt", "receipt-valid-1.txt"} {
		text, err := os.ReadFile(filepath.Join("../../ledger/testdata/kit", name))
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.NewReplacer("expect: valid", "expect: record", "expect: frame", "expect: valid", "root: ", "root: 0").Replace(string(text))
		if err := os.WriteFile(a.path(name), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := a.run(t, "python3 "+script+" kit .")
	if err == nil || !strings.Contains(out, "0 vectors as expected, 3 not") {
		t.Errorf("it takes them: %v\n%s", err, out)
	}
}
