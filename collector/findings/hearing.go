// SPDX-License-Identifier: Apache-2.0

package findings

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// stepTolerance is how far wall and monotonic clock may part between two records of an
	// epoch: there is a heartbeat every few seconds, and clocks are slewed by 1 in 2,000.
	stepTolerance = 5 * time.Second
	// aheadTolerance is how far an agent's clock may be ahead of the collector's.
	aheadTolerance = time.Minute
)

// hearing is what was last heard of a ledger. Its keeper's mu guards it.
type hearing struct {
	at            time.Time // by the collector's clock
	ended, silent bool
	clock         clock
}

// clock is where an agent's clocks were at its last record.
type clock struct {
	epoch      uint64
	wall, mono int64
	ahead      bool
}

// listen begins to listen to what is held.
func (k *Keeper) listen(ctx context.Context) error {
	held, err := k.options.Store.Ledgers(ctx)
	if err != nil {
		return err
	}
	for _, l := range held {
		rows, err := k.options.Store.List(ctx, store.Selection{Filter: &writv1.RecordFilter{Origin: l.Origin}, Limit: 1})
		if err != nil {
			return err
		}
		last := &writv1.Record{}
		for _, row := range rows {
			if err := proto.Unmarshal(row.Raw, last); err != nil {
				return fmt.Errorf("the newest record of %s: %w", l.Origin, err)
			}
		}
		h := &hearing{}
		h.hear(last, k.options.Clock())
		k.heard[l.Origin] = h
	}
	return nil
}

func (h *hearing) hear(last *writv1.Record, now time.Time) {
	h.at, h.ended, h.silent = now, last.GetKind() == writv1.RecordKind_RECORD_KIND_END, false
	h.clock.epoch, h.clock.wall, h.clock.mono = last.GetEpoch(), bounded(last.GetTimeUnixNs()), bounded(last.GetMonoNs())
}

// Taking looks at what is about to be stored on top of a holding, while the head before
// it is still the one held. It MUST be called before it is stored, by the one stream of
// the ledger.
func (k *Keeper) Taking(ctx context.Context, from stream.Holding, a stream.Accepted) {
	k.mu.Lock()
	h := k.heard[a.Origin]
	if h == nil {
		h = &hearing{at: k.options.Clock()}
		k.heard[a.Origin] = h
	}
	was, now := h.clock, k.options.Clock()
	k.mu.Unlock()
	detail := ""
	for _, r := range a.Decoded {
		if odd := was.step(r, now); odd != "" && detail == "" {
			detail = fmt.Sprintf("record %d: %s", r.GetIndex(), odd)
		}
	}
	k.mu.Lock()
	h.clock.ahead = was.ahead
	k.mu.Unlock()
	if detail != "" {
		k.Keep(ctx, store.Finding{
			Origin: a.Origin, Kind: ClockJump, Detail: detail, HeldSize: from.Size, HeldRoot: from.Root, Head: a.Head, Time: now,
		})
	}
}

// Taken hears what was stored.
func (k *Keeper) Taken(ctx context.Context, a stream.Accepted) {
	if len(a.Decoded) == 0 {
		return
	}
	k.mu.Lock()
	h := k.heard[a.Origin]
	wasSilent := h != nil && h.silent
	if h != nil {
		h.hear(a.Decoded[len(a.Decoded)-1], k.options.Clock())
	}
	k.mu.Unlock()
	if wasSilent {
		k.options.Log.InfoContext(ctx, "a silent agent is heard again", "origin", a.Origin)
	}
}

// step takes the clock to a record, and says what is odd about the way there.
func (c *clock) step(r *writv1.Record, now time.Time) (odd string) {
	wall, mono := bounded(r.GetTimeUnixNs()), bounded(r.GetMonoNs())
	ahead := wall > now.Add(aheadTolerance).UnixNano()
	// Differences of numbers that are not negative fit; their difference may not.
	parted := float64(wall-c.wall) - float64(mono-c.mono)
	switch {
	case c.epoch == r.GetEpoch() && math.Abs(parted) > float64(stepTolerance):
		odd = "the wall clock went " + span(parted) + " further than the monotonic one"
	case c.epoch != 0 && c.epoch != r.GetEpoch() && float64(c.wall-wall) > float64(stepTolerance):
		odd = "the wall clock is " + span(float64(c.wall-wall)) + " behind the epoch before"
	case ahead && !c.ahead:
		odd = "the wall clock is " + span(float64(wall-now.UnixNano())) + " ahead of the collector's"
	}
	*c = clock{epoch: r.GetEpoch(), wall: wall, mono: mono, ahead: ahead}
	return odd
}

// span is a number of nanoseconds in words.
func span(ns float64) string {
	if math.Abs(ns) >= math.MaxInt64 {
		return "centuries"
	}
	return time.Duration(ns).Round(time.Millisecond).String()
}

func bounded(n uint64) int64 { return int64(min(n, math.MaxInt64)) } //nolint:gosec // it fits

// Run looks for silence until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(max(k.options.Silence/looks, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.Look(ctx)
		}
	}
}

// Look finds the ledgers that have become silent. One that has ended is not, nor one
// whose key is no longer known, which is so let go if it was silent before.
func (k *Keeper) Look(ctx context.Context) {
	k.letGo()
	now := k.options.Clock()
	for origin, at := range k.overdue(now) {
		if !k.options.Known(origin) {
			continue
		}
		held, err := k.options.Store.Holding(ctx, origin)
		if err != nil {
			k.options.Log.ErrorContext(ctx, "a silent ledger's head cannot be read", "origin", origin, "error", err)
			continue
		}
		if !k.silence(origin, at) {
			continue // it spoke meanwhile
		}
		k.Keep(ctx, store.Finding{
			Origin: origin, Kind: Silence, Detail: fmt.Sprintf("nothing has come for %s, and it has not ended", now.Sub(at).Round(time.Millisecond)),
			HeldSize: held.Size, HeldRoot: held.Root, Time: now,
		})
	}
}

// overdue returns the ledgers from which nothing came for too long, and since when.
func (k *Keeper) overdue(now time.Time) map[string]time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]time.Time{}
	for origin, h := range k.heard {
		if !h.ended && !h.silent && now.Sub(h.at) >= k.options.Silence {
			out[origin] = h.at
		}
	}
	return out
}

// silence marks a ledger as silent, unless it has been heard since a time.
func (k *Keeper) silence(origin string, since time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.heard[origin]
	if h == nil || h.silent || !h.at.Equal(since) {
		return false
	}
	h.silent = true
	return true
}

// letGo takes ledgers whose key is no longer known from those that are silent.
func (k *Keeper) letGo() {
	for origin, h := range k.silentOnes() {
		if k.options.Known(origin) {
			continue
		}
		k.mu.Lock()
		h.silent = false
		k.mu.Unlock()
	}
}

// silentOnes are the ledgers that are silent.
func (k *Keeper) silentOnes() map[string]*hearing {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]*hearing{}
	for origin, h := range k.heard {
		if h.silent {
			out[origin] = h
		}
	}
	return out
}
