// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// syncLoop is the syncer: the only goroutine that syncs the segment that is being
// written, at once where somebody waits and every SyncInterval otherwise. While one
// sync runs those who come form the group of the next.
func (l *Ledger) syncLoop() {
	defer close(l.synced)
	tick := time.NewTicker(l.opts.SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.syncIfBehind()
		case <-l.urgent:
			l.syncIfBehind()
		case reply := <-l.flush:
			reply <- l.sync()
		case <-l.stopped:
			return
		}
	}
}

func (l *Ledger) syncIfBehind() {
	l.mu.Lock()
	behind := l.durable < l.size && l.failure == nil
	l.mu.Unlock()
	if behind {
		_ = l.sync() // it has told everybody whom it concerns
	}
}

// sync syncs what is written, and answers those who wait for it. When that fails,
// nobody can say what of it is on the disk: the ledger is unavailable until the
// segment is written anew.
func (l *Ledger) sync() error {
	l.mu.Lock()
	if l.failure != nil {
		defer l.mu.Unlock()
		return l.failure
	}
	file, size, rewrites, group := l.file, l.size, l.rewrites, l.syncing
	l.syncing = nil
	l.mu.Unlock()

	err := file.Sync()

	l.mu.Lock()
	if err != nil && l.rewrites == rewrites {
		l.mu.Unlock()
		l.fail(fmt.Errorf("sync segment: %w", err))
		err = l.unavailable()
		for _, p := range group {
			p.lateErr = err
			p.durable <- struct{}{}
		}
		return err
	}
	defer l.mu.Unlock()
	l.durable = max(l.durable, size)
	l.notify()
	for _, p := range group {
		if p.durability == writv1.Durability_DURABILITY_REMOTE && p.at.Index >= l.acked {
			l.waiting[p] = true
			continue
		}
		p.durable <- struct{}{}
	}
	return nil
}

// notify wakes those who wait for durable to grow. It is called with mu held.
func (l *Ledger) notify() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// fail makes the ledger unavailable.
func (l *Ledger) fail(cause error) {
	l.mu.Lock()
	if l.failure != nil {
		l.mu.Unlock()
		return
	}
	l.failure = fmt.Errorf("%w: %w", ErrUnavailable, cause)
	err, group := l.failure, l.syncing
	l.syncing = nil
	l.mu.Unlock()
	l.down.Store(true)
	for _, p := range group {
		p.lateErr = err
		p.durable <- struct{}{}
	}
	select {
	case l.broken <- struct{}{}:
	default:
	}
	if l.opts.OnState != nil {
		l.opts.OnState(err)
	}
}
