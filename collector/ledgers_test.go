// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/collector"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is where a collector and an agent's ledger are.
type place struct {
	dir    string
	config *writv1.CollectorConfig
	// clock is the collector's, told hears of findings, registry has its metrics.
	clock    func() time.Time
	told     chan store.Finding
	registry *prometheus.Registry
}

func newPlace(t *testing.T) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &place{dir: dir, clock: time.Now, told: make(chan store.Finding, 100), registry: prometheus.NewRegistry(), config: &writv1.CollectorConfig{
		DataDir: filepath.Join(dir, "store"), AgentsFile: filepath.Join(dir, "agents"),
		HeadLog: &writv1.HeadLog{CheckpointInterval: durationpb.New(100 * time.Millisecond)},
	}}
}

func (p *place) socket() string { return filepath.Join(p.dir, "c.sock") }

// collect runs a collector until the result is called.
func (p *place) collect(t *testing.T) (stop func()) {
	t.Helper()
	p.registry = prometheus.NewRegistry()
	c, err := collector.New(t.Context(), collector.Options{
		Config: p.config, Credentials: insecure.NewCredentials(), Registry: p.registry,
		Clock: p.clock, Log: slog.New(slog.DiscardHandler), Tell: func(f store.Finding) { p.told <- f },
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", p.socket())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, listener) }()
	if err := c.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
	return func() {
		cancel()
		if err := errors.Join(<-served, c.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
		if c.Ready() == nil {
			t.Error("a collector that has stopped is ready")
		}
	}
}

// agent opens a ledger; its key is known to the collector where that is said.
func (p *place) agent(t *testing.T, name string, known bool) *ledger.Ledger {
	t.Helper()
	return p.agentAt(t, name, known, time.Now)
}

// agentAt is an agent with a clock of its own.
func (p *place) agentAt(t *testing.T, name string, known bool, clock func() time.Time) *ledger.Ledger {
	t.Helper()
	l, _, err := ledger.Open(ledger.Options{
		Dir: filepath.Join(p.dir, name), Origin: "example.org/agent/desk", AcknowledgeTimeout: patience, Clock: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	if known {
		p.know(t, l.VerifierKey())
	}
	return l
}

func (p *place) know(t *testing.T, lines ...string) {
	t.Helper()
	if err := os.WriteFile(p.config.GetAgentsFile(), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *place) dial(t *testing.T) (writv1.LedgerServiceClient, func()) {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+p.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return writv1.NewLedgerServiceClient(conn), func() { _ = conn.Close() }
}

// send sends a ledger until the result is called; what went wrong on the way is told.
func (p *place) send(t *testing.T, l *ledger.Ledger) (stop func(), problems chan error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.config.GetDataDir(), "collector.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	client, hangUp := p.dial(t)
	problems = make(chan error, 1000)
	sender := stream.NewSender(stream.SenderOptions{
		Ledger: l, Client: client, Collector: key, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		OnError: func(err error) {
			select {
			case problems <- err:
			default:
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sender.Run(ctx) }()
	return func() {
		cancel()
		<-done
		hangUp()
	}, problems
}

// record appends records, the last of which waits for the collector.
func record(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	for i := range n {
		durability := writv1.Durability_DURABILITY_PROCESS
		if i == n-1 {
			durability = writv1.Durability_DURABILITY_REMOTE
		}
		heartbeat(t, l, durability)
	}
}

func heartbeat(t *testing.T, l *ledger.Ledger, durability writv1.Durability) {
	t.Helper()
	entry := ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_HEARTBEAT, Body: &writv1.HeartbeatRecord{Received: 1}}
	if _, err := l.Append(t.Context(), entry, durability); err != nil {
		t.Fatal(err)
	}
}

// verified is the one ledger that the store holds, which verifies.
func (p *place) verified(t *testing.T) store.LedgerReport {
	t.Helper()
	report, err := store.Verify(t.Context(), p.config.GetDataDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	if len(report.Ledgers) != 1 {
		t.Fatalf("%d ledgers are held", len(report.Ledgers))
	}
	return report.Ledgers[0]
}

func TestWhatIsAcknowledgedIsStoredThoughTheCollectorStopsAndStarts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := p.agent(t, "agent", true)
	collecting := p.collect(t)
	sending, _ := p.send(t, l)
	for range 4 {
		record(t, l, 300)
		collecting()
		for range 100 {
			heartbeat(t, l, writv1.Durability_DURABILITY_PROCESS)
		}
		collecting = p.collect(t)
	}
	record(t, l, 1)
	head, _, err := l.Head()
	if err != nil {
		t.Fatal(err)
	}
	sending()
	collecting()
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	if held := p.verified(t); held.Size < head.Size || held.Root == [32]byte{} || held.Origin != head.Origin {
		t.Errorf("held = %+v, want the %d records of %s", held, head.Size, head.Origin)
	}
}

func TestAnAgentIsTakenOnceItsKeyIsKnown(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := p.agent(t, "agent", false)
	collecting := p.collect(t)
	sending, problems := p.send(t, l)
	if err := <-problems; status.Code(errors.Unwrap(err)) != codes.PermissionDenied && !strings.Contains(err.Error(), "does not know the ledger") {
		t.Errorf("a stranger is answered %v", err)
	}
	p.know(t, "# the desk", l.VerifierKey(), "")
	record(t, l, 3)
	sending()
	collecting()
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	p.verified(t)
}

func TestALedgerThatDoesNotContinueWhatIsHeldIsAFinding(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		more int // records of the copy after it was made
		want string
	}{
		"a copy that went on by itself": {20, "fork"},
		"an older copy":                 {0, "rollback"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			l := p.agent(t, "agent", true)
			collecting := p.collect(t)
			sending, _ := p.send(t, l)
			record(t, l, 10)
			if err := os.CopyFS(filepath.Join(p.dir, "copy"), os.DirFS(filepath.Join(p.dir, "agent"))); err != nil {
				t.Fatal(err)
			}
			record(t, l, 20)
			sending()
			copied := p.agent(t, "copy", false)
			for range c.more {
				heartbeat(t, copied, writv1.Durability_DURABILITY_NODE)
			}
			sending, problems := p.send(t, copied)
			<-problems
			sending()
			collecting()
			if err := errors.Join(l.Close(nil), copied.Close(nil)); err != nil {
				t.Fatal(err)
			}
			found := p.findings(t)
			if len(found) != 1 || found[0].Kind != c.want || len(found[0].HeldHead) == 0 || len(found[0].Head) == 0 {
				t.Errorf("findings = %+v, want a %s with both heads", found, c.want)
			}
			if told := <-p.told; told.Kind != c.want || len(p.told) > 0 {
				t.Errorf("told of %+v and %d more, want the %s once", told, len(p.told), c.want)
			}
			if f := p.loggedFinding(t, l); f.GetKind() != c.want || len(f.GetHeldHead()) == 0 || len(f.GetHead()) == 0 {
				t.Errorf("the collector's log has %v, want the %s with both heads", f, c.want)
			}
		})
	}
}

func (p *place) findings(t *testing.T) []store.Finding {
	t.Helper()
	kept, err := store.OpenReadOnly(t.Context(), p.config.GetDataDir())
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close() //nolint:errcheck // read only
	found, err := kept.Findings(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestOneStreamOfALedgerIsServedAtATime(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := p.agent(t, "agent", true)
	defer p.collect(t)()
	client, hangUp := p.dial(t)
	defer hangUp()
	defer func() { _ = l.Close(nil) }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hello := &writv1.SyncRequest{Message: &writv1.SyncRequest_Hello{Hello: &writv1.Hello{Origin: l.Origin()}}}
	open := func() writv1.LedgerService_SyncClient {
		s, err := client.Sync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(hello); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatalf("the hello is answered %v", err)
		}
		return s
	}
	older := open()
	newer := open()
	if _, err := older.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the older stream ends with %v, want ABORTED", err)
	}
	if err := newer.Send(hello); err != nil {
		t.Fatal(err)
	}
	if _, err := newer.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a second hello is answered %v, want INVALID_ARGUMENT", err)
	}
}

func TestTheKeyIsMadeOnceAndKept(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	var keys []string
	for range 2 {
		p.collect(t)()
		text, err := os.ReadFile(filepath.Join(p.config.GetDataDir(), "collector.vkey"))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(text))
	}
	if keys[0] != keys[1] {
		t.Error("a restart made another key")
	}
	info, err := os.Stat(filepath.Join(p.config.GetDataDir(), "collector.key"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("collector.key has mode %v", info.Mode())
	}
}
