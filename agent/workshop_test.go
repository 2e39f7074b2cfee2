// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// workshopFiles are a bundle with one tool that is run and one that is let through.
var workshopFiles = map[string]string{
	"bundle.yaml": "name: workshop\n",
	"protos/workshop.proto": `syntax = "proto3";
package workshop.v1;

import "buf/validate/validate.proto";
import "writ/v1/options.proto";

service Workshop {
  // Make a thing.
  rpc Make(MakeRequest) returns (MakeResponse) {
    option (writ.v1.tool) = {name: "workshop.make" risk: RISK_LOW effect: TOOL_EFFECT_WRITE command: {path: "/bin/true"}};
  }
  // Send a thing away.
  rpc Send(MakeRequest) returns (MakeResponse) {
    option (writ.v1.tool) = {name: "workshop.send" risk: RISK_LOW effect: TOOL_EFFECT_WRITE};
  }
}

message MakeRequest {
  string thing = 1 [(buf.validate.field).string.max_len = 1000000];
}
message MakeResponse {
  string thing = 1;
  repeated Part parts = 2;
}
message Part {
  string secret = 1 [(writ.v1.field).sensitivity = SENSITIVITY_REDACT];
}
`,
	"grants/all.yaml": `grants:
  - name: makers
    effect: GRANT_EFFECT_ALLOW
    principals: {roles: [maker]}
    tools: [workshop.make, workshop.send]
`,
	"budgets/all.yaml": `budgets:
  - name: things
    tools: ["*"]
    scopes: [BUDGET_SCOPE_USER]
    dimension: DIMENSION_CALLS
    limit: 10000
    window: 86400s
`,
	"catalogue.yaml": "upstreams: []\n",
}

// craft is an executor that a test makes of a function.
type craft func(context.Context, tools.Execution) (*tools.Result, error)

// Execute runs the function.
func (c craft) Execute(ctx context.Context, x tools.Execution) (*tools.Result, error) {
	return c(ctx, x)
}

// made answers with what was asked for.
func made(_ context.Context, x tools.Execution) (*tools.Result, error) {
	return &tools.Result{JSON: x.JSON}, nil
}

// workshop is an agent over a ledger that a test can break.
type workshop struct {
	t      testing.TB
	dir    string
	disk   *brokenDisk
	log    *strings.Builder
	ledger *ledger.Ledger
	agent  *agent.Agent
}

// workshopOptions say how a workshop differs from the usual one.
type workshopOptions struct {
	craft      craft
	executor   tools.Executor
	executions int
	ledger     func(*ledger.Options)
	floor      writv1.Durability
	// clock tells the time; nil is the system's.
	clock func() time.Time
	// alert hears of alerts.
	alert func(*writv1.AlertRecord)
	// files are further files of the bundle.
	files     map[string]string
	approvers []agent.Approver
	// snapshots is what snapshots are written with; nil is the system's.
	snapshots ledger.FS
	// originals are keys to seal originals to; nil is no sealer.
	originals *originals.Keys
	tracer    agent.Tracer
	// leased says that the test gives slices of shared budgets.
	leased bool
}

func openWorkshop(t testing.TB, options workshopOptions) *workshop {
	t.Helper()
	w := &workshop{t: t, dir: t.TempDir(), disk: &brokenDisk{}, log: &strings.Builder{}}
	if options.craft == nil {
		options.craft = made
	}
	if options.executor == nil {
		options.executor = options.craft
	}
	if options.clock == nil {
		options.clock = time.Now
	}
	for name, text := range workshopFiles {
		path := filepath.Join(w.dir, "bundle", filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range options.files {
		path := filepath.Join(w.dir, "bundle", filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	bundle, err := bundles.LoadDir(t.Context(), filepath.Join(w.dir, "bundle"), bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	state := agent.NewState(10_000)
	open := ledger.Options{
		Dir: filepath.Join(w.dir, "ledger"), Origin: "workshop", FS: w.disk,
		ProbeInterval: time.Millisecond, OnRecord: state.Fold,
	}
	if options.ledger != nil {
		options.ledger(&open)
	}
	if w.ledger, _, err = ledger.Open(open); err != nil {
		t.Fatal(err)
	}
	keys, err := agent.OpenKeys(filepath.Join(w.dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	var sealer *originals.Sealer
	if options.originals != nil {
		sealer = originals.NewSealer(ledger.LogID(w.ledger.Origin()))
		sealer.Use(options.originals)
	}
	w.agent, err = agent.New(t.Context(), agent.Options{
		Originals: sealer,
		Bundle:    bundle, Ledger: w.ledger, State: state, SnapshotDir: open.Dir, SnapshotFS: options.snapshots, Keys: keys, Command: options.executor, Approvers: options.approvers,
		Clock: options.clock, Random: rand.Reader, Limits: agent.Limits{Executions: options.executions},
		Floor: max(options.floor, writv1.Durability_DURABILITY_PROCESS), WriteDurability: options.floor,
		Start: &writv1.StartRecord{Origin: w.ledger.Origin()},
		Alert: options.alert, Tracer: options.tracer, Leased: options.leased,
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func (w *workshop) close() {
	w.disk.mend()
	if err := errors.Join(w.agent.Close(context.Background()), w.ledger.Close(nil)); err != nil {
		w.t.Errorf("close: %v", err)
	}
}

// request asks for a thing as somebody who may.
func request(tool, thing string) *agent.Request {
	return &agent.Request{
		Surface:   writv1.Surface_SURFACE_EXECUTE,
		Principal: &writv1.Principal{User: "ann", Tenant: "acme", Roles: []string{"maker"}},
		Envelope:  &writv1.Envelope{ToolCall: &writv1.ToolCall{Name: tool}},
		Arguments: tools.Arguments{JSON: []byte(`{"thing":"` + thing + `"}`)},
	}
}

// allow admits a request that must be allowed.
func (w *workshop) allow(r *agent.Request) *agent.Admission {
	w.t.Helper()
	admission := w.agent.Admit(w.t.Context(), r)
	if refusal := admission.Refusal(); refusal != nil {
		w.t.Fatalf("the call is refused: %v", refusal)
	}
	return admission
}

// entry is a record as a test looks at it.
type entry struct {
	id       string
	decision *writv1.DecisionRecord
	outcome  *writv1.OutcomeRecord
}

// is says whether a record belongs to an admission.
func (e *entry) is(admission *agent.Admission) bool {
	return hex.EncodeToString([]byte(e.id)) == admission.ID()
}

// entries are the decisions and outcomes that the ledger holds.
func (w *workshop) entries() []entry {
	w.t.Helper()
	var found []entry
	w.records(func(record *writv1.Record) {
		e := entry{id: string(record.GetDecisionId())}
		var err error
		switch record.GetKind() {
		case writv1.RecordKind_RECORD_KIND_DECISION:
			e.decision = &writv1.DecisionRecord{}
			err = canonical.Unmarshal(record.GetBody(), e.decision)
		case writv1.RecordKind_RECORD_KIND_OUTCOME:
			e.outcome = &writv1.OutcomeRecord{}
			err = canonical.Unmarshal(record.GetBody(), e.outcome)
		default:
			return
		}
		if err != nil {
			w.t.Fatalf("record %d: %v", record.GetIndex(), err)
		}
		found = append(found, e)
	})
	return found
}

func (w *workshop) records(visit func(*writv1.Record)) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	reader, err := w.ledger.Reader(0)
	if err != nil {
		w.t.Fatal(err)
	}
	for at, size := uint64(0), w.ledger.Status().Size; at < size; {
		bundle, err := reader.Next(ctx, 1000, 1<<20)
		if err != nil {
			w.t.Fatalf("read the ledger at %d: %v", at, err)
		}
		for _, text := range bundle.Records {
			record := &writv1.Record{}
			if err := canonical.Unmarshal(text, record); err != nil {
				w.t.Fatalf("record %d: %v", at, err)
			}
			visit(record)
			at++
		}
	}
}

// folded is the state that the ledger's records give.
func (w *workshop) folded() string {
	w.t.Helper()
	state := agent.NewState(10_000)
	w.records(func(record *writv1.Record) {
		if err := state.Fold(record); err != nil {
			w.t.Fatal(err)
		}
	})
	return state.Dump()
}

// brokenDisk is a disk whose writes fail while it is told so.
type brokenDisk struct {
	ledger.OS
	broken atomic.Bool
}

var errDisk = errors.New("the disk is broken")

func (d *brokenDisk) breaks() { d.broken.Store(true) }
func (d *brokenDisk) mend()   { d.broken.Store(false) }

// OpenFile opens a file whose writes fail with the disk.
func (d *brokenDisk) OpenFile(name string, flag int, perm fs.FileMode) (ledger.File, error) {
	if d.broken.Load() && flag&os.O_CREATE != 0 {
		return nil, errDisk
	}
	file, err := d.OS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &brokenFile{File: file, disk: d}, nil
}

type brokenFile struct {
	ledger.File
	disk *brokenDisk
}

// Write fails while the disk is broken.
func (f *brokenFile) Write(b []byte) (int, error) {
	if f.disk.broken.Load() {
		return 0, errDisk
	}
	return f.File.Write(b)
}
