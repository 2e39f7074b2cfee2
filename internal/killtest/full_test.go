// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// smallDisk, in the environment, is a directory: the test binary puts a disk of
	// smallBytes there, and becomes the program that its arguments are.
	smallDisk  = "WRIT_SMALL_DISK"
	smallBytes = 8 << 20
	// ballastBytes of it are taken by somebody else, until they give them back.
	ballastBytes = 5 << 20
	// mostCalls bounds how many calls it may take until the disk is full.
	mostCalls = 20_000
	// mendTimeout is how long the agent may take to be well again by itself.
	mendTimeout = 20 * time.Second
)

// counter is a bundle of one tool that anybody may call, with much to say.
var counter = map[string]string{
	"bundle.yaml": "name: counter\n",
	"protos/counter.proto": `syntax = "proto3";
package counter.v1;
import "buf/validate/validate.proto";
import "writ/v1/options.proto";
service Counter {
  rpc Note(NoteRequest) returns (NoteResponse) { option (writ.v1.tool) = {name: "counter.note" risk: RISK_LOW effect: TOOL_EFFECT_WRITE}; }
}
message NoteRequest { string text = 1 [(buf.validate.field).string.max_len = 4096]; }
message NoteResponse {}
`,
	"grants/all.yaml": "grants:\n  - {name: all, effect: GRANT_EFFECT_ALLOW, principals: {roles: [clerk]}, tools: [\"*\"]}\n",
}

// runOnSmallDisk runs in namespaces of its own. It returns only where it fails.
func runOnSmallDisk(dir string, args []string) error {
	if err := unix.Mount("small", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0700", smallBytes)); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, ballastBytes), 0o600); err != nil {
		return err
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// startOnSmallDisk starts the agent with its data on a disk of its own, or skips the test
// where the kernel gives no namespace to mount one in.
func (s *shop) startOnSmallDisk(t *testing.T) *grpc.ClientConn {
	t.Helper()
	dir := filepath.Join(s.dir, "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	inside := func(command *exec.Cmd) *exec.Cmd {
		command.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		return command
	}
	try := inside(exec.CommandContext(t.Context(), os.Args[0], "/bin/true"))
	try.Env = append(os.Environ(), smallDisk+"="+t.TempDir())
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("the kernel gives no user and mount namespace: %v %s", err, out)
	}
	// Whoever runs the tests is root inside, and the agent sees its callers as that.
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.write("agent.yaml", strings.Replace(string(text), fmt.Sprintf("uid: %d,", os.Getuid()), "uid: 0,", 1))
	command := inside(exec.Command(os.Args[0], program(t, agentPlain), "agent", "--config", s.config))
	command.Env = append(os.Environ(), smallDisk+"="+dir)
	s.agent = launch(t, "agent", command)
	return s.connect()
}

// onDisk is the path of a file on the agent's own disk.
func (s *shop) onDisk(name string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", s.agent.command.Process.Pid), s.dir, "data", name)
}

// A disk that is full in truth: the agent denies and says why, nothing that it answered is
// missing, and it is well again by itself when there is room.
func TestAFullDiskDeniesAndMendsByItself(t *testing.T) {
	t.Parallel()
	s := openShop(t, counter)
	conn := s.startOnSmallDisk(t)
	defer conn.Close()
	client := writv1.NewToolServiceClient(conn)
	note := func() *writv1.AuthorizeResponse {
		answer, err := client.Authorize(t.Context(), &writv1.AuthorizeRequest{Envelope: &writv1.Envelope{
			ToolCall: &writv1.ToolCall{Name: "counter.note", Args: &writv1.Json{Text: fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", 4000))}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	var allowed []string
	fill := func() {
		for range mostCalls {
			answer := note()
			switch {
			case answer.GetDecision().GetVerdict() == writv1.Verdict_VERDICT_ALLOW:
				allowed = append(allowed, answer.GetDecisionId())
				continue
			case answer.GetDecision().GetReason() != writv1.Reason_REASON_LEDGER_UNAVAILABLE:
				t.Fatalf("a full disk: %v", answer)
			}
			return
		}
		t.Fatalf("%d calls were allowed on a disk of %d bytes", len(allowed), smallBytes)
	}
	fill()
	if len(allowed) == 0 {
		t.Fatal("nothing was allowed while there was room")
	}
	for range 20 { // and goes on denying
		if answer := note(); answer.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_DENY {
			t.Fatalf("on a full disk: %v", answer)
		}
	}
	first := len(allowed)
	if err := os.Remove(s.onDisk("ballast")); err != nil {
		t.Fatal(err)
	}
	s.agent.awaitFor(t, mendTimeout, func() bool {
		answer := note()
		if answer.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
			return false
		}
		allowed = append(allowed, answer.GetDecisionId())
		return true
	})
	if said := s.agent.output.String(); !strings.Contains(said, syscall.ENOSPC.Error()) || !strings.Contains(said, "available again") {
		t.Errorf("the agent does not say what was wrong, or that it is over:\n%s", said)
	}
	fill() // it was not the last time
	s.holds(t, allowed)
	t.Logf("%d calls were allowed until the disk was full, and %d more after there was room", first, len(allowed)-first)
}

// holds says whether every decision that was answered is in the ledger.
func (s *shop) holds(t *testing.T, answered []string) {
	t.Helper()
	found := map[string]bool{}
	err := ledger.NewDirReader(s.onDisk("ledger"), verifierOf(t, s.onDisk("ledger"))).Read(func(_ uint64, raw []byte) error {
		record := &writv1.Record{}
		err := proto.Unmarshal(raw, record)
		if record.GetKind() == writv1.RecordKind_RECORD_KIND_DECISION {
			found[hex.EncodeToString(record.GetDecisionId())] = true
		}
		return err
	})
	// What could not be written may stand there in part.
	if fault := (&ledger.Fault{}); err != nil && !errors.As(err, &fault) {
		t.Fatal(err)
	}
	for i, id := range answered {
		if !found[id] {
			t.Errorf("decision %s, the answer to call %d, is missing", id, i)
		}
	}
}
