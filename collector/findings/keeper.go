// SPDX-License-Identifier: Apache-2.0

package findings

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger/stream"
)

// The kinds of findings that this package finds; the others are stream.FindingKind's.
const (
	// Silence: nothing has come for several heartbeats of a ledger that has not ended.
	Silence = "silence"
	// ClockJump: an agent's wall clock does not go as its monotonic one does, or is ahead.
	ClockJump = "clock_jump"
)

const (
	// DefaultSilence is three heartbeats of an agent whose configuration says nothing.
	DefaultSilence = 30 * time.Second
	// looks is how often within that time silence is looked for.
	looks = 4
	// maxTold bounds how many findings are known to have been told.
	maxTold = 1 << 14
	// strangersEvery is the least time between two looks at one stranger, and between two
	// strangers that are told of; maxStrangers is how many are looked at within it.
	strangersEvery = time.Minute
	maxStrangers   = 1 << 10
)

// Store is where findings are kept. A *store.Store is one.
type Store interface {
	// AddFinding keeps a finding, or counts it where it is kept.
	AddFinding(ctx context.Context, f store.Finding) error
	// CountFindings says how many are kept of each kind.
	CountFindings(ctx context.Context) (map[string]int, error)
	// Ledgers lists what is held.
	Ledgers(ctx context.Context) ([]store.Ledger, error)
	// Holding is what is held of one ledger.
	Holding(ctx context.Context, origin string) (stream.Holding, error)
	// List returns records.
	List(ctx context.Context, s store.Selection) ([]store.Stored, error)
}

// Options configures a [Keeper].
type Options struct {
	// Store keeps the findings. It MUST be set.
	Store Store
	// Known says whether an agent's key is known: whose is taken away is not missed when
	// it is silent. It MUST be set.
	Known func(origin string) bool
	// Silence is after how long without a record a ledger is silent. Default: 30 s.
	Silence time.Duration
	// Clock tells the time. It MUST be set.
	Clock func() time.Time
	// Log hears of every finding. It MUST be set.
	Log *slog.Logger
	// Registry takes the metrics. Nil takes none.
	Registry prometheus.Registerer
	// Tell is called with each finding that was not told before. It MUST NOT wait. Nil
	// tells nobody.
	Tell func(store.Finding)
}

// Keeper keeps findings. Its methods may be called by several goroutines.
type Keeper struct {
	options Options
	found   *prometheus.CounterVec

	mu sync.Mutex // guards what follows
	// heard has what was last heard of each ledger that is held.
	heard map[string]*hearing
	// told has the findings that were told, the newer and the older half.
	told, toldBefore map[[sha256.Size]byte]struct{}
	// strangers has when those who are not known were looked at last.
	strangers    map[string]time.Time
	strangerTold time.Time
}

// New returns a keeper that listens to every ledger that is held from now on: nobody
// could speak before.
func New(ctx context.Context, o Options) (*Keeper, error) {
	if o.Silence <= 0 {
		o.Silence = DefaultSilence
	}
	k := &Keeper{
		options: o, heard: map[string]*hearing{}, strangers: map[string]time.Time{}, told: map[[sha256.Size]byte]struct{}{},
		found: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_collector_findings_total", Help: "What was found to be wrong with ledgers, by what it is, each time.",
		}, []string{"finding"}),
	}
	if err := k.listen(ctx); err != nil {
		return nil, err
	}
	if o.Registry != nil {
		o.Registry.MustRegister(k.found, &gauges{keeper: k})
	}
	return k, nil
}

// Count counts a finding that says nothing about a ledger and is not kept.
func (k *Keeper) Count(kind string) { k.found.WithLabelValues(kind).Inc() }

// Keep counts, keeps and tells a finding. What cannot be kept is logged and told: that
// something is wrong must not depend on the store.
func (k *Keeper) Keep(ctx context.Context, f store.Finding) {
	k.Count(f.Kind)
	if f.Time.IsZero() {
		f.Time = k.options.Clock()
	}
	k.options.Log.ErrorContext(ctx, "something is wrong with a ledger", "origin", f.Origin, "finding", f.Kind, "detail", f.Detail)
	if err := k.options.Store.AddFinding(ctx, f); err != nil {
		k.options.Log.ErrorContext(ctx, "a finding was not kept", "origin", f.Origin, "finding", f.Kind, "error", err)
	}
	if k.isNews(f) {
		k.tell(f)
	}
}

// Stranger keeps that somebody came with a ledger whose key is not known. The head is its
// word, which nothing vouches for. Anybody who reaches the listener can be a stranger,
// under any name and as often as it likes: each name is kept once a minute, so many of
// them, and one of all is told.
func (k *Keeper) Stranger(ctx context.Context, origin string, head []byte) {
	f := store.Finding{
		Origin: origin, Kind: stream.UnknownKey.String(), Detail: "the collector knows no key of this ledger",
		Head: head, Time: k.options.Clock(),
	}
	k.Count(f.Kind)
	k.options.Log.WarnContext(ctx, "an agent is not known", "origin", origin)
	kept, told := k.admit(origin, f.Time)
	if !kept {
		return
	}
	if err := k.options.Store.AddFinding(ctx, f); err != nil {
		k.options.Log.ErrorContext(ctx, "a finding was not kept", "origin", origin, "finding", f.Kind, "error", err)
	}
	if f.Head = nil; told && k.isNews(f) { // one name is one piece of news, whatever its heads
		k.tell(f)
	}
}

// admit says whether a stranger is kept, and whether it may be told of.
func (k *Keeper) admit(origin string, now time.Time) (kept, told bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if last, seen := k.strangers[origin]; seen && now.Sub(last) < strangersEvery {
		return false, false
	}
	if len(k.strangers) >= maxStrangers {
		maps.DeleteFunc(k.strangers, func(_ string, last time.Time) bool { return now.Sub(last) >= strangersEvery })
	}
	if len(k.strangers) >= maxStrangers {
		return false, false
	}
	k.strangers[origin] = now
	if told = now.Sub(k.strangerTold) >= strangersEvery; told {
		k.strangerTold = now
	}
	return true, told
}

func (k *Keeper) tell(f store.Finding) {
	if k.options.Tell != nil {
		k.options.Tell(f)
	}
}

// isNews says whether a finding was not told before, and remembers that it is.
func (k *Keeper) isNews(f store.Finding) bool {
	id := Identity(f)
	k.mu.Lock()
	defer k.mu.Unlock()
	_, newer := k.told[id]
	_, older := k.toldBefore[id]
	if newer || older {
		return false
	}
	if len(k.told) >= maxTold {
		k.told, k.toldBefore = map[[sha256.Size]byte]struct{}{}, k.told
	}
	k.told[id] = struct{}{}
	return true
}

// Identity is the same for findings that the store counts as one: of one kind about one
// ledger, at one holding, with one head.
func Identity(f store.Finding) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("writ/finding/v1"))
	for _, part := range [][]byte{[]byte(f.Origin), []byte(f.Kind), fmt.Append(nil, f.HeldSize), f.HeldRoot, f.Head} {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
