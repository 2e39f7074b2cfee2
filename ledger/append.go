// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Append records an entry and returns when it is as durable as was asked;
// DURABILITY_UNSPECIFIED is DURABILITY_PROCESS. On an error the caller MUST NOT let
// anything go ahead, and MUST look at Position.Recorded: where it is true the
// record stands. A context that ends while the record is being written is looked at
// after the write. The slices of e MUST NOT be changed before Append returns.
func (l *Ledger) Append(ctx context.Context, e Entry, d writv1.Durability) (Position, error) {
	p, err := newPending(e)
	if err != nil {
		return Position{}, err
	}
	if d == writv1.Durability_DURABILITY_NODE || d == writv1.Durability_DURABILITY_REMOTE {
		p.durability, p.durable = d, make(chan struct{}, 1)
	}
	if err := l.enqueue(ctx, p); err != nil {
		return Position{}, err
	}
	if err := l.awaitWritten(ctx, p); err != nil {
		return Position{}, err
	}
	at, err := p.at, p.err
	if err == nil && p.durable != nil {
		return at, l.awaitDurable(ctx, p)
	}
	p.release()
	return at, err
}

// AppendAsync records an entry that nobody waits for, in the order of the calls. It
// waits only for a place in the queue. What could not be written is given to
// Options.OnLost. The slices of e MUST NOT be changed after the call.
func (l *Ledger) AppendAsync(ctx context.Context, e Entry) error {
	p, err := newPending(e)
	if err != nil {
		return err
	}
	p.async = true
	return l.enqueue(ctx, p)
}

func (l *Ledger) enqueue(ctx context.Context, p *pending) error {
	if l.down.Load() {
		p.release()
		return l.unavailable()
	}
	select {
	case l.queue <- p:
		return nil
	case <-l.stopped:
		p.release()
		return l.unavailable()
	case <-ctx.Done():
		p.release()
		return fmt.Errorf("wait for the ledger's queue: %w", context.Cause(ctx))
	}
}

// awaitWritten returns an error where the record was not written and is not going
// to be, because its caller left; p is then the committer's. What the committer has
// to say otherwise stands in p.
func (l *Ledger) awaitWritten(ctx context.Context, p *pending) error {
	var why error
	select {
	case <-p.done:
		return nil
	case <-l.stopped:
		why = l.unavailable()
	case <-ctx.Done():
		why = fmt.Errorf("wait for the ledger: %w", context.Cause(ctx))
	}
	if p.state.CompareAndSwap(stateQueued, stateAbandoned) {
		return why
	}
	<-p.done
	return nil
}

// awaitDurable waits for the sync, and for the acknowledgement where that was asked.
func (l *Ledger) awaitDurable(ctx context.Context, p *pending) error {
	var timeout <-chan time.Time
	if p.durability == writv1.Durability_DURABILITY_REMOTE {
		t := time.NewTimer(l.opts.AcknowledgeTimeout)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-p.durable:
		return p.lateErr
	case <-timeout:
		l.forget(p)
		return fmt.Errorf("%w in %v", ErrNotAcknowledged, l.opts.AcknowledgeTimeout)
	case <-ctx.Done():
		l.forget(p)
		return fmt.Errorf("wait for durability: %w", context.Cause(ctx))
	}
}

func (l *Ledger) forget(p *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, p)
}

// unavailable is ErrUnavailable with its cause.
func (l *Ledger) unavailable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure == nil {
		return ErrUnavailable
	}
	return l.failure
}
