// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector is a collector that holds one ledger in memory.
type collector struct {
	writv1.UnimplementedLedgerServiceServer
	signer   note.Signer
	verifier note.Verifier // of the ledger
	credit   uint64

	mu      sync.Mutex
	held    stream.Holding
	records [][]byte
	hellos  int
	hello   *writv1.Hello // the last
	// misbehave, if not nil, is asked for each bundle: it may lie, or end the stream.
	misbehave func(c *collector, hellos int, a stream.Accepted) (*writv1.Acknowledgement, error)
	welcome   func(*writv1.Welcome)
}

func (c *collector) Sync(s grpc.BidiStreamingServer[writv1.SyncRequest, writv1.SyncResponse]) error {
	in, err := s.Recv()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.hellos++
	hellos := c.hellos
	c.hello = in.GetHello()
	r := stream.NewReceiver(c.held, c.verifier)
	welcome, err := r.Hello(in.GetHello())
	c.mu.Unlock()
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if c.credit > 0 {
		welcome.CreditBytes = c.credit
	}
	if c.welcome != nil {
		c.welcome(welcome)
	}
	if err := s.Send(&writv1.SyncResponse{Message: &writv1.SyncResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		ack, err := c.take(r, in.GetBundle(), hellos)
		if err != nil {
			return err
		}
		if ack == nil {
			continue
		}
		if err := s.Send(&writv1.SyncResponse{Message: &writv1.SyncResponse_Acknowledgement{Acknowledgement: ack}}); err != nil {
			return err
		}
	}
}

func (c *collector) take(r *stream.Receiver, b *writv1.RecordBundle, hellos int) (*writv1.Acknowledgement, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, err := r.Feed(b)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if c.misbehave != nil {
		if ack, err := c.misbehave(c, hellos, a); ack != nil || err != nil {
			return ack, err
		}
	}
	c.records = append(c.records, a.Records...)
	c.held = a.Holding
	size := 0
	for _, rec := range b.GetRecords() {
		size += len(rec)
	}
	return c.acknowledge(a.Size, [32]byte(a.Root), uint64(size+len(b.GetHead()))), nil
}

func (c *collector) acknowledge(size uint64, root [32]byte, credit uint64) *writv1.Acknowledgement {
	receipt, err := ledger.SignHead(ledger.Head{Origin: c.held.Origin, Size: size, Root: root}, c.signer)
	if err != nil {
		panic(err)
	}
	return &writv1.Acknowledgement{Receipt: receipt, CreditBytes: credit}
}

// pair is a ledger with a sender, and the collector that it sends to.
type pair struct {
	ledger    *ledger.Ledger
	collector *collector
	client    writv1.LedgerServiceClient
	opts      stream.SenderOptions
}

func newPair(t *testing.T, change func(*ledger.Options, *collector)) *pair {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, "collector.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{signer: signer}
	o := ledger.Options{Dir: t.TempDir(), Origin: "test.example/agent", AcknowledgeTimeout: 20 * time.Second, SyncInterval: 5 * time.Millisecond}
	if change != nil {
		change(&o, c)
	}
	l, r, err := ledger.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(nil) })
	if c.verifier, err = note.NewVerifier(l.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	c.held.Origin = r.Origin
	p := &pair{ledger: l, collector: c, client: serve(t, c)}
	p.opts = stream.SenderOptions{
		Ledger: l, Client: p.client, Collector: key,
		MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, Patience: 10 * time.Second,
	}
	return p
}

func serve(t *testing.T, c *collector) writv1.LedgerServiceClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	writv1.RegisterLedgerServiceServer(server, c)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(lis) })
	conn, err := grpc.NewClient("passthrough:///collector", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		wg.Wait()
	})
	return writv1.NewLedgerServiceClient(conn)
}

// run runs a sender until the test ends, and returns what it ended with.
func (p *pair) run(t *testing.T) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- stream.NewSender(p.opts).Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return ended
}

func (p *pair) append(t *testing.T, n int, d writv1.Durability) {
	t.Helper()
	for range n {
		if _, err := p.ledger.Append(t.Context(), entry(900), d); err != nil {
			t.Fatal(err)
		}
	}
}

func entry(size int) ledger.Entry {
	return ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_DECISION, DecisionID: bytes.Repeat([]byte{1}, 16),
		Body: &writv1.DecisionRecord{Arguments: bytes.Repeat([]byte("x"), size)},
	}
}

// same fails unless the collector holds exactly the ledger.
func (p *pair) same(t *testing.T) {
	t.Helper()
	p.collector.mu.Lock()
	defer p.collector.mu.Unlock()
	size := p.ledger.Status().Size
	root, err := p.ledger.RootAt(size)
	if err != nil {
		t.Fatal(err)
	}
	if p.collector.held.Size != size || !bytes.Equal(p.collector.held.Root, root) || uint64(len(p.collector.records)) != size {
		t.Errorf("the collector holds %d records, the ledger has %d; or the roots differ", p.collector.held.Size, size)
	}
}

func TestALedgerReachesTheCollector(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*ledger.Options, *collector){
		"in one segment":                       nil,
		"in many segments":                     func(o *ledger.Options, _ *collector) { o.SegmentBytes = 20 << 10 },
		"with credit for one bundle at a time": func(_ *ledger.Options, c *collector) { c.credit = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, change)
			p.append(t, 400, writv1.Durability_DURABILITY_PROCESS) // a backlog
			p.run(t)
			p.append(t, 30, writv1.Durability_DURABILITY_REMOTE)
			p.same(t)
		})
	}
}

func TestALedgerReachesACollectorThatFails(t *testing.T) {
	t.Parallel()
	drop := status.Error(codes.Unavailable, "dropped")
	for name, misbehave := range map[string]func(*collector, int, stream.Accepted) (*writv1.Acknowledgement, error){
		"it drops every bundle of the first connections": func(_ *collector, hellos int, _ stream.Accepted) (*writv1.Acknowledgement, error) {
			if hellos < 4 {
				return nil, drop
			}
			return nil, nil
		},
		"it stores and dies before it acknowledges": func(c *collector, hellos int, a stream.Accepted) (*writv1.Acknowledgement, error) {
			if hellos < 4 {
				c.held, c.records = a.Holding, append(c.records, a.Records...)
				return nil, drop
			}
			return nil, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, func(_ *ledger.Options, c *collector) { c.misbehave = misbehave })
			p.append(t, 600, writv1.Durability_DURABILITY_PROCESS)
			p.run(t)
			p.append(t, 5, writv1.Durability_DURABILITY_REMOTE)
			p.same(t)
		})
	}
}

func TestALieUnlocksNothing(t *testing.T) {
	t.Parallel()
	strangerKey, _, err := note.GenerateKey(rand.Reader, "collector.example")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := note.NewSigner(strangerKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(c *collector, a stream.Accepted) *writv1.Acknowledgement{
		"another root": func(c *collector, a stream.Accepted) *writv1.Acknowledgement {
			return c.acknowledge(a.Size, [32]byte{1}, 0)
		},
		"more than was sent": func(c *collector, a stream.Accepted) *writv1.Acknowledgement {
			return c.acknowledge(a.Size+100, [32]byte(a.Root), 0)
		},
		"another key": func(c *collector, a stream.Accepted) *writv1.Acknowledgement {
			signed, _ := ledger.SignHead(ledger.Head{Origin: c.held.Origin, Size: a.Size, Root: [32]byte(a.Root)}, stranger)
			return &writv1.Acknowledgement{Receipt: signed}
		},
		"the ledger's own head sent back": func(_ *collector, a stream.Accepted) *writv1.Acknowledgement {
			return &writv1.Acknowledgement{Receipt: a.Head}
		},
		"another ledger": func(c *collector, a stream.Accepted) *writv1.Acknowledgement {
			signed, _ := ledger.SignHead(ledger.Head{Origin: "other", Size: a.Size, Root: [32]byte(a.Root)}, c.signer)
			return &writv1.Acknowledgement{Receipt: signed}
		},
		"no note": func(*collector, stream.Accepted) *writv1.Acknowledgement {
			return &writv1.Acknowledgement{Receipt: []byte("x")}
		},
		"too long": func(*collector, stream.Accepted) *writv1.Acknowledgement {
			return &writv1.Acknowledgement{Receipt: make([]byte, 5000)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, func(o *ledger.Options, c *collector) {
				o.AcknowledgeTimeout = 100 * time.Millisecond
				c.misbehave = func(c *collector, _ int, a stream.Accepted) (*writv1.Acknowledgement, error) { return lie(c, a), nil }
			})
			refused := make(chan error, 100)
			p.opts.OnError = func(err error) {
				select {
				case refused <- err:
				default:
				}
			}
			p.run(t)
			at, err := p.ledger.Append(t.Context(), entry(100), writv1.Durability_DURABILITY_REMOTE)
			if !errors.Is(err, ledger.ErrNotAcknowledged) || !at.Recorded {
				t.Errorf("Append = %+v, %v, want ErrNotAcknowledged", at, err)
			}
			if err := <-refused; !errors.Is(err, stream.ErrRefused) {
				t.Errorf("the sender says %v, want ErrRefused", err)
			}
			if s := p.ledger.Status(); s.Acknowledged != 0 {
				t.Errorf("%d records are acknowledged", s.Acknowledged)
			}
		})
	}
}

func TestAnAcknowledgementOfWhatWasNotSentIsRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t, func(_ *ledger.Options, c *collector) {
		c.credit = 1 // one bundle at a time
		c.misbehave = func(c *collector, _ int, _ stream.Accepted) (*writv1.Acknowledgement, error) {
			head, err := ledger.OpenHead(c.hello.GetHead(), c.verifier)
			if err != nil {
				return nil, err
			}
			return c.acknowledge(head.Size, head.Root, 0), nil // its root is right
		}
	})
	p.append(t, 400, writv1.Durability_DURABILITY_PROCESS) // more than a bundle
	p.append(t, 1, writv1.Durability_DURABILITY_NODE)
	refused := make(chan error, 1)
	p.opts.OnError = func(err error) {
		select {
		case refused <- err:
		default:
		}
	}
	p.run(t)
	if err := <-refused; !errors.Is(err, stream.ErrRefused) {
		t.Errorf("the sender says %v, want ErrRefused", err)
	}
	if s := p.ledger.Status(); s.Acknowledged != 0 {
		t.Errorf("%d records are acknowledged", s.Acknowledged)
	}
}

func TestACollectorWithAnotherLedgerIsAnAlarm(t *testing.T) {
	t.Parallel()
	for name, welcome := range map[string]func(*writv1.Welcome){
		"another root":             func(w *writv1.Welcome) { w.DurableSize, w.DurableRoot = 2, bytes.Repeat([]byte{1}, 32) },
		"no root":                  func(w *writv1.Welcome) { w.DurableSize, w.DurableRoot = 2, nil },
		"more than the ledger has": func(w *writv1.Welcome) { w.DurableSize = 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, func(_ *ledger.Options, c *collector) { c.welcome = welcome })
			p.append(t, 3, writv1.Durability_DURABILITY_NODE)
			if err := <-p.run(t); !errors.Is(err, stream.ErrFork) {
				t.Errorf("Run = %v, want ErrFork", err)
			}
		})
	}
}

func TestASilentCollectorIsLeft(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	first := true
	p := newPair(t, func(_ *ledger.Options, c *collector) {
		c.welcome = func(*writv1.Welcome) {
			c.mu.Lock()
			wait := first
			first = false
			c.mu.Unlock()
			if wait {
				<-gate
			}
		}
	})
	p.opts.Patience = 50 * time.Millisecond
	var says error
	p.opts.OnError = func(err error) {
		if says == nil {
			says = err
			close(gate)
		}
	}
	ended := p.run(t)
	p.append(t, 1, writv1.Durability_DURABILITY_REMOTE)
	p.same(t)
	if err := p.ledger.Close(nil); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run after Close = %v, want nil", err)
	}
	if says == nil || !strings.Contains(says.Error(), "does not answer") {
		t.Errorf("the sender says %v", says)
	}
}

func TestASenderWithoutACollectorEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	conn, err := grpc.NewClient("unix:///nonexistent/collector.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test
	p.opts.Client = writv1.NewLedgerServiceClient(conn)
	tried := make(chan struct{}, 100)
	p.opts.OnError = func(error) { tried <- struct{}{} }
	s := stream.NewSender(p.opts)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	p.append(t, 10, writv1.Durability_DURABILITY_NODE) // the ledger goes on
	<-tried
	<-tried
	if ok, err := s.Connected(); ok || err == nil {
		t.Errorf("Connected = %v, %v", ok, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}
