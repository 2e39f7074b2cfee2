// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/ledger/token"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
	"github.com/writ-dev/writ/state/drift"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// Options is what an agent is made of.
type Options struct {
	// Bundle decides. It may be replaced with [Agent.Swap].
	Bundle *policy.Bundle
	// Ledger keeps the records. The agent is its only writer.
	Ledger *ledger.Ledger
	// State is the fold over the ledger's records.
	State *State
	// SnapshotDir is where [Agent.Compact] keeps its snapshot, and where State's came
	// from: the ledger's directory. Empty: no snapshots, and nothing is pruned.
	SnapshotDir string
	// SnapshotFS is what it is written with. Default: the operating system's.
	SnapshotFS ledger.FS
	// Keys are the tenants' keys.
	Keys *Keys
	// Command and Web run tools; nil means that such tools are refused.
	Command, Web tools.Executor
	// Tokens makes decision tokens; nil means that routes which ask for one are refused.
	Tokens *token.Minter
	// Pins tells what MCP servers list; nil means that none has been seen.
	Pins func(tool string) *writv1.Pin
	// Approvers may approve calls; empty means that nobody can.
	Approvers []Approver
	// Clock tells the time.
	Clock func() time.Time
	// Random is a source of unguessable bytes.
	Random io.Reader
	// Limits bounds what is read.
	Limits Limits
	// Floor is the least durability of a decision's record.
	Floor writv1.Durability
	// WriteDurability is what a tool that writes asks for when it says nothing:
	// remote where there is a collector.
	WriteDurability writv1.Durability
	// Leased says that a collector gives slices of shared budgets: [Agent.KeepLeases] runs,
	// and [Agent.TakeGrant] gets what it gives. A bundle with such budgets does not come
	// into force without.
	Leased bool
	// Start is the record of this start; its fields are filled by whoever opened
	// the ledger.
	Start *writv1.StartRecord
	// Alert, which may be nil, hears of alerts once they are recorded. It is called
	// from a goroutine of the ledger: it MUST be quick, and MUST NOT call the agent or
	// the ledger.
	Alert func(*writv1.AlertRecord)
	// Asked hears of calls that wait for an approval, once each, when that is recorded.
	// It MUST NOT block; nil hears nothing.
	Asked func(*writv1.ApprovalSubject)
	// Originals seals sensitive values where tools ask to have them kept; nil seals
	// nothing, and records say so.
	Originals *originals.Sealer
	// Tracer shows decisions and executions elsewhere; nil shows nothing, and costs nothing.
	Tracer Tracer
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
	// Log is the agent's own log. It never gets arguments, tokens or keys.
	Log *slog.Logger
}

// Limits bounds what the agent reads and holds. Zero takes the default.
type Limits struct {
	// JSON bounds arguments.
	JSON schemas.Limits
	// ResponseBytes bounds a response that is validated. Default: 4 MiB.
	ResponseBytes int
	// Executions at a time. Default: 64.
	Executions int
	// Admissions open at a time. Default: 100,000.
	Admissions int
}

func (l Limits) orDefaults() Limits {
	if l.ResponseBytes == 0 {
		l.ResponseBytes = 4 << 20
	}
	if l.Executions == 0 {
		l.Executions = 64
	}
	if l.Admissions == 0 {
		l.Admissions = 100_000
	}
	return l
}

// Agent decides on calls and keeps their records.
type Agent struct {
	options Options
	// generation is the bundle in force. A call keeps the one it began with.
	generation atomic.Pointer[policy.Bundle]
	state      *State
	// executions has a token for each execution that may run.
	executions chan struct{}
	counts     counts
	draining   atomic.Bool
	// drifts says that there are alarms of drift to be recorded.
	drifts atomic.Bool

	// mu guards what follows.
	mu sync.Mutex
	// open has the ALLOWed admissions whose outcome is not written.
	open map[admissions.ID]*Admission
	// moving are the sessions of which a run is being begun or ended.
	moving map[sessions.ID]bool
	// changed is closed when an approval changes.
	changed chan struct{}
	// unwritten are the outcomes that could not be written.
	unwritten []*ending
	// drifted are the alarms of drift that nobody has recorded.
	drifted []drift.Alarm
	// alerting are the alerts that are on their way into the ledger.
	alerting map[string]bool

	// hungry has room for one word that a slice of a shared budget is to be asked for.
	hungry chan struct{}
	// askedAt is the size of the ledger that the collector has when it has the last ask.
	// It is KeepLeases'.
	askedAt uint64

	// compacted is the number of records that the snapshot covers. It is Compact's.
	compacted uint64
}

// counts are the figures of heartbeats, since the start.
type counts struct {
	received, allowed, denied, needsApproval atomic.Uint64
}

// New returns an agent. It refuses a state whose snapshot is not one of the ledger.
// It writes the record of the start, the outcome UNKNOWN of every admission that the
// crash or stop before left open, and the record of the bundle.
func New(ctx context.Context, options Options) (*Agent, error) {
	if options.Pins == nil {
		options.Pins = unseen
	}
	if options.SnapshotFS == nil {
		options.SnapshotFS = ledger.OS{}
	}
	options.Limits = options.Limits.orDefaults()
	a := &Agent{
		options:    options,
		state:      options.State,
		executions: make(chan struct{}, options.Limits.Executions),
		open:       make(map[admissions.ID]*Admission),
		alerting:   make(map[string]bool),
		moving:     make(map[sessions.ID]bool),
		changed:    make(chan struct{}),
		hungry:     make(chan struct{}, 1),
		compacted:  options.State.size,
	}
	if err := options.State.checkLedger(options.Ledger); err != nil {
		return nil, err
	}
	// What the fold found drifting was told when it happened.
	_ = options.State.drift.Alarms()
	if err := a.append(ctx, writv1.RecordKind_RECORD_KIND_START, options.Start, a.ownDurability()); err != nil {
		return nil, fmt.Errorf("record the start: %w", err)
	}
	options.State.started(options.Start)
	if err := a.closeLost(ctx); err != nil {
		return nil, err
	}
	if err := a.Swap(ctx, options.Bundle); err != nil {
		return nil, err
	}
	return a, nil
}

func unseen(string) *writv1.Pin {
	return &writv1.Pin{State: writv1.PinState_PIN_STATE_UNSEEN}
}

// append records something of the agent itself.
func (a *Agent) append(ctx context.Context, kind writv1.RecordKind, body proto.Message, d writv1.Durability) error {
	_, err := a.options.Ledger.Append(ctx, ledger.Entry{
		Kind:         kind,
		BundleDigest: a.bundleDigest(),
		Body:         body,
	}, d)
	return err
}

// ownDurability is that of the agent's own records. It does not wait for a collector:
// one that is down keeps no agent from starting.
func (a *Agent) ownDurability() writv1.Durability {
	return min(a.options.Floor, writv1.Durability_DURABILITY_NODE)
}

func (a *Agent) bundleDigest() []byte {
	bundle := a.generation.Load()
	if bundle == nil {
		return nil
	}
	digest := bundle.Digest()
	return digest[:]
}

// closeLost writes UNKNOWN for every admission that is open in the fold: the
// process that held it is gone, and nobody can tell whether it took effect.
func (a *Agent) closeLost(ctx context.Context) error {
	a.state.mu.Lock()
	lost := a.state.admissions.Open()
	a.state.mu.Unlock()
	for _, held := range lost {
		outcome := &writv1.OutcomeRecord{
			State:   writv1.OutcomeState_OUTCOME_STATE_UNKNOWN,
			Reason:  writv1.Reason_REASON_ADMISSION_OUTCOME_UNKNOWN,
			Message: "the agent stopped while the call was open",
		}
		if err := a.recordOutcome(ctx, newEnding(held.Claim, outcome, nil, nil)); err != nil {
			return fmt.Errorf("record the outcome of %s, which an earlier stop left open: %w", held.ID, err)
		}
	}
	return nil
}

// Swap puts a bundle in force, and records it. Calls that have begun keep theirs.
// A bundle with a tool that its executor could not run, such as one whose program is
// missing or another than was pinned, does not come into force.
func (a *Agent) Swap(ctx context.Context, bundle *policy.Bundle) error {
	if err := a.check(bundle); err != nil {
		return err
	}
	digest := bundle.Digest()
	_, err := a.options.Ledger.Append(ctx, ledger.Entry{
		Kind:         writv1.RecordKind_RECORD_KIND_BUNDLE,
		BundleDigest: digest[:],
		Body: &writv1.BundleRecord{
			Name:   bundle.Name(),
			Digest: digest[:],
			Tools:  uint32(len(bundle.Tools())),
			Grants: uint32(bundle.Grants()),
		},
	}, a.ownDurability())
	if err != nil {
		return fmt.Errorf("record the bundle: %w", err)
	}
	a.generation.Store(bundle)
	return nil
}

// checker is an executor that can tell beforehand whether it could run a tool; its
// error names the tool.
type checker interface {
	Check(tool *tools.Tool) error
}

// check says whether the bundle's tools can be run, those apart that nothing here
// runs: they are refused when they are called.
func (a *Agent) check(bundle *policy.Bundle) error {
	var errs []error
	if shared := bundle.Shared(); len(shared) > 0 && !a.options.Leased {
		errs = append(errs, fmt.Errorf("agents share the budget %s, and this one has no collector to get a slice of it from: configure a collector, or take \"shared\" from the budget", shared[0]))
	}
	for _, tool := range bundle.Tools() {
		executor, refusal := a.executor(tool)
		if checker, ok := executor.(checker); refusal == nil && ok {
			if err := checker.Check(tool); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Bundle returns the bundle in force.
func (a *Agent) Bundle() *policy.Bundle { return a.generation.Load() }

// State returns the agent's state, for tests and diagnosis.
func (a *Agent) State() *State { return a.state }

// Intervals are how often [Agent.Tend] does what it does.
type Intervals struct {
	// Heartbeat is the time between heartbeat records.
	Heartbeat time.Duration
	// Sweep is the time between looks for admissions that were dropped.
	Sweep time.Duration
	// Dropped is how long an admission may stay open without being finished.
	Dropped time.Duration
}

// Tend writes heartbeats, finishes dropped admissions and writes what could not be
// written before, until ctx is done.
func (a *Agent) Tend(ctx context.Context, every Intervals) {
	heartbeat, sweep := time.NewTicker(every.Heartbeat), time.NewTicker(every.Sweep)
	defer heartbeat.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heartbeat.C:
			a.beat(ctx)
		case <-sweep.C:
			a.catchUp(ctx)
			now := a.options.Clock()
			a.sweep(now.Add(-every.Dropped))
			a.state.forget(now)
		}
	}
}

func (a *Agent) beat(ctx context.Context) {
	status := a.options.Ledger.Status()
	err := a.append(ctx, writv1.RecordKind_RECORD_KIND_HEARTBEAT, &writv1.HeartbeatRecord{
		Received:      a.counts.received.Load(),
		Allowed:       a.counts.allowed.Load(),
		Denied:        a.counts.denied.Load(),
		NeedsApproval: a.counts.needsApproval.Load(),

		Acknowledged: status.Acknowledged, LedgerBytes: uint64(max(status.Bytes, 0)), LedgerMaxBytes: uint64(max(status.MaxBytes, 0)),
	}, a.ownDurability())
	if err != nil {
		a.options.Log.ErrorContext(ctx, "the heartbeat was not recorded", "error", err)
	}
}

// sweep finishes admissions that were made before the given time and dropped.
func (a *Agent) sweep(before time.Time) {
	for _, admission := range a.openSince(before) {
		if err := admission.drop(); err != nil && !errors.Is(err, ErrFinished) {
			a.options.Log.Error("a dropped call's outcome was not recorded", "decision_id", admission.ID(), "error", err)
		}
	}
}

func (a *Agent) openSince(before time.Time) []*Admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	var old []*Admission
	for _, admission := range a.open {
		if admission.time.Before(before) && !admission.running.Load() {
			old = append(old, admission)
		}
	}
	return old
}

// Drain refuses new calls from now on.
func (a *Agent) Drain() { a.draining.Store(true) }

// Close finishes what is open and records the end. The faces MUST have stopped. Where
// calls that write wait for the collector, the end waits for it too, so that it is not
// taken for a crash upstream; a collector that does not answer gets it at the next
// start.
func (a *Agent) Close(ctx context.Context) error {
	a.Drain()
	a.sweep(a.options.Clock().Add(time.Hour))
	a.catchUp(ctx)
	a.giveBack(ctx)
	a.mu.Lock()
	open := len(a.open)
	a.mu.Unlock()
	end := &writv1.EndRecord{OpenAdmissions: uint32(open)}
	err := a.append(ctx, writv1.RecordKind_RECORD_KIND_END, end, max(a.ownDurability(), a.options.WriteDurability))
	if errors.Is(err, ledger.ErrNotAcknowledged) {
		a.options.Log.WarnContext(ctx, "the collector has not taken the end of the ledger", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("record the end: %w", err)
	}
	return nil
}
