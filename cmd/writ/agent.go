// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/token"
	"github.com/writ-dev/writ/planner/webhook"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/sandbox"
	"github.com/writ-dev/writ/telemetry"
	"github.com/writ-dev/writ/tools/command"
	"github.com/writ-dev/writ/tools/mcp"
	"github.com/writ-dev/writ/tools/web"
	"github.com/writ-dev/writ/wire"
)

func newAgent() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent --config FILE",
		Short: "Run the agent beside a service",
		Long: `Agent serves Envoy's filters and the planners' API until it gets SIGTERM or SIGINT.
SIGHUP loads the bundle again; one that does not load leaves the old one in force.`,
		Args: cobra.NoArgs,
	}
	path := cmd.Flags().StringP("config", "c", "", "the agent's configuration file")
	_ = cmd.MarkFlagRequired("config")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := readAgentConfig(*path)
		if err != nil {
			return err
		}
		log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil))
		paceGC()
		loaded, err := load(cmd.Context(), cmd, config.GetBundleDir())
		if err != nil {
			return err
		}
		return runAgent(cmd.Context(), config, loaded.Bundle, log)
	}
	return cmd
}

// gcPercent is how far the heap grows between two garbage collections: five
// times what is in use, which is some 20 MB. At Go's own 100 collecting is an eighth
// of the agent's CPU (docs/benchmarks.md).
const gcPercent = 400

// paceGC collects garbage less often, unless $GOGC says how often. A limit in
// $GOMEMLIMIT is kept all the same.
func paceGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// parts are what an agent is wired from.
type parts struct {
	config   *writv1.AgentConfig
	log      *slog.Logger
	registry *prometheus.Registry
	ledger   *ledger.Ledger
	upstream *upstream // nil without a collector
	agent    *agent.Agent
	watcher  *mcp.Watcher
	runner   *sandbox.Runner
	command  *command.Executor
	sealing  *sealing          // nil without originals_keys_file
	alerts   *webhook.Sender   // nil without a webhook
	asks     *webhook.Sender   // nil without a webhook
	tracer   *telemetry.Tracer // nil without telemetry
	started  time.Time
	draining atomic.Bool
}

// runAgent wires the agent, serves until ctx is done, and closes in order.
func runAgent(ctx context.Context, config *writv1.AgentConfig, bundle *policy.Bundle, log *slog.Logger) error {
	p := &parts{config: config, log: log, registry: prometheus.NewRegistry(), started: time.Now()}
	if err := p.open(ctx, bundle); err != nil {
		return errors.Join(err, p.close(context.WithoutCancel(ctx)))
	}
	return errors.Join(p.serve(ctx), p.close(context.WithoutCancel(ctx)))
}

func (p *parts) open(ctx context.Context, bundle *policy.Bundle) error {
	data := p.config.GetDataDir()
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	state, err := agent.LoadSnapshot(p.ledgerDir(), int(or(p.config.GetLimits().GetAdmissions(), 100_000)))
	if err != nil {
		return err
	}
	keys, err := agent.OpenKeys(filepath.Join(data, "keys"))
	if err != nil {
		return err
	}
	var recovery ledger.Recovery
	p.ledger, recovery, err = ledger.Open(p.ledgerOptions(state))
	if recovery.LostBytes > 0 { // by a start in vain too, whose ledger no record of a start tells it
		p.log.WarnContext(ctx, "a torn tail of the ledger was cut off; nothing of it was ever answered", "bytes", recovery.LostBytes)
	}
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	p.observeLedger()
	if err := p.openUpstream(ctx); err != nil {
		return err
	}
	signer, err := token.OpenKey(data)
	if err != nil {
		return err
	}
	minter, err := token.NewMinter(p.ledger.Origin(), signer)
	if err != nil {
		return err
	}
	if err := p.openWebhooks(); err != nil {
		return err
	}
	approvers, err := approversOf(p.config)
	if err != nil {
		return err
	}
	sealer, err := p.openOriginals()
	if err != nil {
		return err
	}
	options := p.agentOptions(bundle)
	options.Approvers, options.Originals, options.Keys, options.Tokens = approvers, sealer, keys, minter
	options.State, options.Start = state, p.start(recovery)
	if err := p.openTelemetry(ctx, &options); err != nil {
		return err
	}
	if err := p.executors(bundle, &options); err != nil {
		return err
	}
	if p.agent, err = agent.New(ctx, options); err != nil {
		return err
	}
	p.observeStops()
	p.watcher = p.newWatcher()
	p.warnOfLess(bundle)
	p.warnOfUnsealed(bundle)
	return nil
}

// agentOptions are those of the agent's options that follow from the configuration and
// from what is open.
func (p *parts) agentOptions(bundle *policy.Bundle) agent.Options {
	limits := p.config.GetLimits()
	return agent.Options{
		Bundle: bundle, Ledger: p.ledger, SnapshotDir: p.ledgerDir(),
		Asked: p.asked, Alert: p.alert, Pins: p.pin, Clock: time.Now, Random: rand.Reader,
		Limits: agent.Limits{
			JSON:          wire.LimitsOf(limits).Request,
			ResponseBytes: int(limits.GetResponseBytes()),
			Executions:    int(limits.GetExecutions()),
			Admissions:    int(limits.GetAdmissions()),
		},
		Floor:           max(p.config.GetLedger().GetDurability(), writv1.Durability_DURABILITY_PROCESS),
		WriteDurability: p.writeDurability(),
		Leased:          p.upstream != nil,
		Metrics:         agent.NewMetrics(p.registry),
		Log:             p.log,
	}
}

func (p *parts) observeStops() {
	p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "writ_stops_in_force", Help: "Stops of operators that are in force.",
	}, func() float64 { return float64(p.agent.InForce()) }))
}

// writeDurability is what tools that write get where they say nothing.
func (p *parts) writeDurability() writv1.Durability {
	if p.upstream != nil {
		return writv1.Durability_DURABILITY_REMOTE
	}
	return writv1.Durability_DURABILITY_PROCESS
}

// or returns value, or what stands for zero.
func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

func (p *parts) ledgerDir() string { return filepath.Join(p.config.GetDataDir(), "ledger") }

func (p *parts) ledgerOptions(state *agent.State) ledger.Options {
	config := p.config.GetLedger()
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return ledger.Options{
		Dir:          p.ledgerDir(),
		Origin:       or(config.GetOrigin(), "writ.local/agent/"+host),
		MaxBytes:     int64(min(config.GetMaxBytes(), 1<<40)),
		SegmentBytes: int64(min(config.GetSegmentBytes(), 1<<30)),

		AcknowledgeTimeout: p.config.GetCollector().GetAcknowledgeTimeout().AsDuration(),
		OnRecord:           state.Fold,
		OnLost: func(_ ledger.Entry, err error) {
			p.log.Error("an outcome could not be recorded yet; the agent goes on trying", "error", err)
		},
		OnState: func(err error) {
			if err != nil {
				p.log.Error("the ledger is unavailable; calls are denied", "error", err)
				return
			}
			p.log.Info("the ledger is available again")
		},
	}
}

func (p *parts) start(recovery ledger.Recovery) *writv1.StartRecord {
	start := &writv1.StartRecord{
		Version:       programVersion(),
		Origin:        recovery.Origin,
		RecoveredSize: recovery.Size,
		RecoveredRoot: recovery.Root,
		LostBytes:     uint64(max(0, recovery.LostBytes)),
	}
	if text, err := (proto.MarshalOptions{Deterministic: true}).Marshal(p.config); err == nil {
		sum := sha256.Sum256(text)
		start.ConfigDigest = sum[:]
	}
	// What tells one boot of the machine from the next (random(4)).
	if text, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		start.BootId = strings.TrimSpace(string(text[:min(len(text), 64)]))
	}
	if sandbox.Probe().Tier >= sandbox.T1 {
		start.SandboxTier = writv1.SandboxTier_SANDBOX_TIER_T1
	}
	return start
}

// executors makes what runs tools: the sandbox where the machine gives one, and
// the way out through Envoy where the configuration names its listener.
func (p *parts) executors(bundle *policy.Bundle, options *agent.Options) error {
	report := sandbox.Probe()
	p.log.Info("sandbox", "tier", report.Tier.String(), "kernel", report.Kernel, "landlock_abi", report.LandlockABI,
		"landlock_missing", report.LandlockMissing, "seccomp", report.Seccomp, "notes", report.Reasons)
	runner, err := sandbox.New(sandbox.Options{})
	switch {
	case err == nil:
		p.runner = runner
		p.command = command.New(runner, p.config.GetBundleDir())
		options.Command = p.command
	case bundle.SandboxTier() > 0:
		return hinted(fmt.Errorf("the bundle demands a sandbox: %w", err), "\"writ sandbox check\" says what is missing")
	default:
		p.log.Warn("command tools are refused: there is no sandbox", "error", err)
	}
	if err := p.checkCommands(bundle); err != nil {
		return err
	}
	if listener := p.config.GetEnvoy().GetAgentListener(); listener != "" {
		out, err := web.New(web.Options{
			Listener: listener, Catalogue: bundle.Catalogue(),
			ResponseBytes: int(p.config.GetLimits().GetResponseBytes()),
		})
		if err != nil {
			return err
		}
		options.Web = out
	}
	return nil
}

// checkCommands says whether the programs of a bundle's tools are there, and are those
// that were pinned.
func (p *parts) checkCommands(bundle *policy.Bundle) error {
	if p.command == nil {
		return nil
	}
	for _, tool := range bundle.Tools() {
		if tool.Options.GetCommand() == nil {
			continue
		}
		if err := p.command.Check(tool); err != nil {
			return fmt.Errorf("tool %s: %w", tool.Name, err)
		}
	}
	return nil
}

func (p *parts) pin(tool string) *writv1.Pin {
	if p.watcher == nil {
		return &writv1.Pin{State: writv1.PinState_PIN_STATE_UNSEEN}
	}
	return p.watcher.Pin(tool)
}

func (p *parts) newWatcher() *mcp.Watcher {
	listener := p.config.GetEnvoy().GetAgentListener()
	if listener == "" {
		return nil
	}
	return mcp.NewWatcher(mcp.Options{
		Bound: func() []mcp.Bound {
			bundle := p.agent.Bundle()
			return mcp.BoundOf(bundle.Tools(), bundle.Catalogue())
		},
		List: func(ctx context.Context, upstream, path string) ([]mcp.Definition, error) {
			return mcp.ThroughEnvoy(listener, upstream, path).List(ctx)
		},
		Digest: bundles.DefinitionDigest,
		Changed: func(tool string, pin *writv1.Pin) {
			p.log.Info("the pin of a tool changed", "tool", tool, "state", pin.GetState().String())
		},
		Clock: time.Now,
		Log:   p.log,
	})
}

func (p *parts) close(ctx context.Context) error {
	var errs []error
	if p.agent != nil {
		errs = append(errs, p.agent.Close(ctx))
	}
	if p.tracer != nil {
		errs = append(errs, p.tracer.Close(ctx))
	}
	if p.upstream != nil {
		errs = append(errs, p.upstream.close())
	}
	if p.ledger != nil {
		errs = append(errs, p.ledger.Close(nil))
	}
	if p.runner != nil {
		errs = append(errs, p.runner.Close())
	}
	return errors.Join(errs...)
}
