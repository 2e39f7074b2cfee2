// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var (
	// ErrFork says that the collector holds another tree than the ledger's own, or
	// more than the ledger has. One of the two is not what it was; nothing is sent
	// until a human has looked.
	ErrFork = errors.New("the collector holds another ledger under this name")
	// ErrRefused says that an answer of the collector was not believed.
	ErrRefused = errors.New("the collector's answer is not believed")

	errStalled = errors.New("the collector does not answer")
)

// maxCredit bounds the credit that is believed.
const maxCredit = 256 << 20

// SenderOptions say what is sent where. The zero value of every field but the first
// three has a default.
type SenderOptions struct {
	Ledger *ledger.Ledger
	// Client is a connection to the collector, which connects again by itself.
	Client writv1.LedgerServiceClient
	// Collector is the key that acknowledgements are signed with.
	Collector note.Verifier
	// OnError is called with what ended a connection, before the next is tried. It
	// MUST NOT block.
	OnError func(error)
	// OnOrder is called with each order of an operator that the collector brings, which
	// vouches for nothing. It MUST NOT block. Nil lets them go by.
	OnOrder func(*writv1.StopOrder)
	// OnGrant is called with each answer to an ask for a slice that the collector sends,
	// unverified. It MUST NOT block. Nil lets them go by.
	OnGrant func(*writv1.LeaseGrant)
	// MinBackoff and MaxBackoff bound the time between tries, which is jittered.
	// Default: 200 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// Patience is how long the collector may leave a hello or a bundle unanswered.
	// Default: 30 s.
	Patience time.Duration
}

func (o SenderOptions) withDefaults() SenderOptions {
	if o.MinBackoff <= 0 {
		o.MinBackoff = 200 * time.Millisecond
	}
	if o.MaxBackoff < o.MinBackoff {
		o.MaxBackoff = max(30*time.Second, o.MinBackoff)
	}
	if o.Patience <= 0 {
		o.Patience = 30 * time.Second
	}
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.OnOrder == nil {
		o.OnOrder = func(*writv1.StopOrder) {}
	}
	if o.OnGrant == nil {
		o.OnGrant = func(*writv1.LeaseGrant) {}
	}
	return o
}

// Sender sends a ledger to the collector.
type Sender struct {
	opts SenderOptions

	mu        sync.Mutex
	connected bool  // guarded by mu
	err       error // of the last connection; guarded by mu
}

// NewSender returns a sender, which does nothing until Run.
func NewSender(o SenderOptions) *Sender { return &Sender{opts: o.withDefaults()} }

// Connected says whether the collector has welcomed the ledger, and if not, why the
// last connection ended.
func (s *Sender) Connected() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connected, s.err
}

func (s *Sender) state(connected bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected, s.err = connected, err
}

// Run sends, and connects again whenever a connection ends, until ctx ends or the
// ledger is closed (nil), or until the collector turns out to hold another ledger
// (ErrFork), which is for the caller to raise an alarm about.
func (s *Sender) Run(ctx context.Context) error {
	tries := 0
	for {
		progress, err := s.session(ctx)
		s.state(false, err)
		if ctx.Err() != nil || errors.Is(err, ledger.ErrClosed) {
			return nil
		}
		s.opts.OnError(err)
		if errors.Is(err, ErrFork) {
			return err
		}
		if progress {
			tries = 0
		}
		if !sleep(ctx, s.backoff(tries)) {
			return nil
		}
		tries++
	}
}

// backoff is between half and all of the time for the try: agents that lost one
// collector do not come back all at once.
func (s *Sender) backoff(tries int) time.Duration {
	d := s.opts.MaxBackoff
	if tries < 20 {
		d = min(d, s.opts.MinBackoff<<tries)
	}
	return d/2 + rand.N(d/2+1) //nolint:gosec // jitter
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session is one connection.
type session struct {
	*Sender
	stream writv1.LedgerService_SyncClient
	cancel context.CancelCauseFunc
	stall  *time.Timer // ends the session when the collector leaves us waiting

	mu       sync.Mutex
	credit   uint64        // bytes that may be sent; guarded by mu
	sent     uint64        // index after the last record sent; guarded by mu
	acked    uint64        // guarded by mu
	progress bool          // something was acknowledged; guarded by mu
	more     chan struct{} // one slot: credit has come
}

// session runs one connection to its end, and says whether anything was acknowledged.
func (s *Sender) session(ctx context.Context) (progress bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &session{Sender: s, cancel: cancel, more: make(chan struct{}, 1)}
	c.stall = time.AfterFunc(s.opts.Patience, func() { cancel(errStalled) })
	defer c.stall.Stop()
	if c.stream, err = s.opts.Client.Sync(ctx); err != nil {
		return false, fmt.Errorf("connect to the collector: %w", err)
	}
	reader, err := c.hello()
	if err != nil {
		return false, causeOf(ctx, err)
	}
	s.state(true, nil)
	received := make(chan struct{})
	go func() {
		defer close(received)
		cancel(c.receive())
	}()
	err = c.send(ctx, reader)
	cancel(err)
	<-received
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.progress, causeOf(ctx, err)
}

// causeOf is why the session really ended: what was cancelled with says more than
// that something was cancelled.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// hello says what we have, and finds out where to go on.
func (c *session) hello() (*ledger.Reader, error) {
	_, head, err := c.opts.Ledger.Head()
	if err != nil {
		return nil, fmt.Errorf("head of the ledger: %w", err)
	}
	hello := &writv1.Hello{Origin: c.opts.Ledger.Origin(), Head: head, OldestIndex: c.opts.Ledger.Status().Oldest}
	if err := c.stream.Send(&writv1.SyncRequest{Message: &writv1.SyncRequest_Hello{Hello: hello}}); err != nil {
		return nil, c.broken("say hello", err)
	}
	in, err := c.stream.Recv()
	if err != nil {
		return nil, fmt.Errorf("wait for welcome: %w", err)
	}
	welcome := in.GetWelcome()
	if welcome == nil {
		return nil, fmt.Errorf("%w: it is no welcome", ErrRefused)
	}
	c.stall.Stop()
	size := welcome.GetDurableSize()
	if synced := c.opts.Ledger.Status().Synced; size > synced {
		return nil, fmt.Errorf("%w: it has %d records, the ledger %d", ErrFork, size, synced)
	}
	root, err := c.opts.Ledger.RootAt(size)
	if err != nil {
		return nil, fmt.Errorf("root of the ledger at %d: %w", size, err)
	}
	if !bytes.Equal(root, welcome.GetDurableRoot()) && (size > 0 || len(welcome.GetDurableRoot()) > 0) {
		return nil, fmt.Errorf("%w: another tree of %d records", ErrFork, size)
	}
	c.credit, c.sent, c.acked = min(welcome.GetCreditBytes(), maxCredit), size, size
	from := size
	if status := c.opts.Ledger.Status(); size > status.Acknowledged && size > status.Oldest {
		// It holds more than it has acknowledged, as far as we know, and a welcome is
		// not signed: the last record again makes it say so.
		from--
	}
	reader, err := c.opts.Ledger.Reader(from)
	if err != nil {
		return nil, fmt.Errorf("read the ledger from %d: %w", from, err)
	}
	return reader, nil
}

// broken is the error of a failed send: gRPC says why on the receiving side.
func (c *session) broken(doing string, err error) error {
	if _, why := c.stream.Recv(); why != nil {
		err = why
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// send sends bundles as credit lasts.
func (c *session) send(ctx context.Context, r *ledger.Reader) error {
	for {
		b, err := r.Next(ctx, BundleRecords, BundleBytes)
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		size := uint64(len(b.Head))
		for _, record := range b.Records {
			size += uint64(len(record))
		}
		if err := c.spend(ctx, size, b.Size); err != nil {
			return err
		}
		out := &writv1.RecordBundle{FirstIndex: b.First, Records: b.Records, Head: b.Head}
		if err := c.stream.Send(&writv1.SyncRequest{Message: &writv1.SyncRequest_Bundle{Bundle: out}}); err != nil {
			if errors.Is(err, io.EOF) { // the stream has ended; the receiving side says why
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return fmt.Errorf("send a bundle: %w", err)
		}
	}
}

// spend waits until there is credit for n bytes, and takes it. A bundle that is
// larger than all the credit there ever is goes alone.
func (c *session) spend(ctx context.Context, n, sent uint64) error {
	for {
		c.mu.Lock()
		if c.credit >= n || (c.credit > 0 && c.acked == c.sent) {
			c.credit -= min(c.credit, n)
			if c.acked == c.sent {
				c.stall.Reset(c.opts.Patience)
			}
			c.sent = sent
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// receive takes acknowledgements and orders until the stream ends, or an acknowledgement
// is not believed.
func (c *session) receive() error {
	for {
		in, err := c.stream.Recv()
		if err != nil {
			return fmt.Errorf("wait for acknowledgements: %w", err)
		}
		if order := in.GetStopOrder(); order != nil {
			c.opts.OnOrder(order)
			continue
		}
		if grant := in.GetLeaseGrant(); grant != nil {
			c.opts.OnGrant(grant)
			continue
		}
		if in.GetAcknowledgement() == nil {
			return fmt.Errorf("%w: it is no acknowledgement", ErrRefused)
		}
		if err := c.acknowledge(in.GetAcknowledgement()); err != nil {
			return err
		}
	}
}

// acknowledge believes an acknowledgement, or not.
func (c *session) acknowledge(a *writv1.Acknowledgement) error {
	if len(a.GetReceipt()) > maxHead {
		return fmt.Errorf("%w: a receipt of %d bytes", ErrRefused, len(a.GetReceipt()))
	}
	head, err := ledger.OpenHead(a.GetReceipt(), c.opts.Collector)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if head.Origin != c.opts.Ledger.Origin() {
		return fmt.Errorf("%w: it is about %q", ErrRefused, head.Origin)
	}
	c.mu.Lock()
	sent := c.sent
	c.mu.Unlock()
	if head.Size > sent { // the hello told it a root, and nothing of what is under it
		return fmt.Errorf("%w: it is about %d records, and %d were sent", ErrRefused, head.Size, sent)
	}
	if err := c.opts.Ledger.Acknowledge(head.Size, head.Root[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if head.Size > c.acked {
		c.acked, c.progress = head.Size, true
	}
	c.credit += min(a.GetCreditBytes(), maxCredit-min(c.credit, maxCredit))
	if c.acked >= c.sent {
		c.stall.Stop()
	} else {
		c.stall.Reset(c.opts.Patience)
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
	return nil
}
