// SPDX-License-Identifier: Apache-2.0

package mcp

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// defaultInterval is the time between looks at a server that answers.
	defaultInterval = time.Minute
	// firstRetry is the time to the next look at servers of which one did not
	// answer; it doubles, up to the interval.
	firstRetry = time.Second
	// stale is for how many intervals a pin is believed that could not be renewed.
	stale = 2
)

// Bound is a tool that is bound to a tool of an MCP server.
type Bound struct {
	// Tool is its name in the bundle.
	Tool string
	// Upstream and Path say where the server is.
	Upstream, Path string
	// Name is the tool's name at the server.
	Name string
	// Digest is that of the definition that was reviewed.
	Digest string
}

// Options configures a [Watcher].
type Options struct {
	// Bound returns what is bound now; it is asked before every look. It MUST be set.
	Bound func() []Bound
	// List returns what a server lists. It MUST be set.
	List func(ctx context.Context, upstream, path string) ([]Definition, error)
	// Digest returns the digest of a definition, in the form of Bound.Digest. It
	// MUST be set.
	Digest func(definition []byte) (string, error)
	// Changed hears of a tool whose pin has another state than before. Nil is nobody.
	Changed func(tool string, pin *writv1.Pin)
	// Interval is the time between looks. Default: 1 minute.
	Interval time.Duration
	// Clock tells the time. It MUST be set.
	Clock func() time.Time
	// Log hears of servers that do not answer. Nil is silent.
	Log *slog.Logger
}

// Watcher knows how the definitions that MCP servers list compare with those
// that were reviewed. It is safe for use by several goroutines.
type Watcher struct {
	options Options

	mu   sync.RWMutex // guards pins
	pins map[string]seen
}

// seen is what was seen of a tool.
type seen struct {
	pin  *writv1.Pin
	time time.Time
}

// NewWatcher returns a watcher that has seen nothing yet.
func NewWatcher(o Options) *Watcher {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{options: o, pins: make(map[string]seen)}
}

// Pin returns what was seen of a tool. The caller MUST NOT change it.
func (w *Watcher) Pin(tool string) *writv1.Pin {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if s, found := w.pins[tool]; found {
		return s.pin
	}
	return &writv1.Pin{State: writv1.PinState_PIN_STATE_UNSEEN}
}

// Run looks at once, and then again and again until ctx is done: after the
// interval, or sooner while a server does not answer, and never quite regularly,
// so that the agents of a fleet do not ask in step.
func (w *Watcher) Run(ctx context.Context) {
	retry := firstRetry
	for {
		wait := w.options.Interval
		if w.Look(ctx) == nil {
			retry = firstRetry
		} else {
			wait, retry = min(wait, retry), min(2*retry, w.options.Interval)
		}
		timer := time.NewTimer(jitter(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// jitter returns a time within a tenth of d.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// Look asks every server once, and returns the first error of one that did not
// answer.
func (w *Watcher) Look(ctx context.Context) error {
	all := w.options.Bound()
	w.forget(all)
	var first error
	for _, server := range byServer(all) {
		if err := w.look(ctx, server); err != nil {
			w.options.Log.WarnContext(ctx, "an MCP server's tools could not be listed", "upstream", server[0].Upstream, "error", err)
			w.expire(server)
			if first == nil {
				first = err
			}
		}
	}
	return first
}

// byServer groups what is bound by where its server is, in a fixed order.
func byServer(all []Bound) [][]Bound {
	var servers [][]Bound
	for _, b := range all {
		at := slices.IndexFunc(servers, func(s []Bound) bool { return s[0].Upstream == b.Upstream && s[0].Path == b.Path })
		if at < 0 {
			servers = append(servers, []Bound{b})
			continue
		}
		servers[at] = append(servers[at], b)
	}
	return servers
}

func (w *Watcher) look(ctx context.Context, server []Bound) error {
	definitions, err := w.options.List(ctx, server[0].Upstream, server[0].Path)
	if err != nil {
		return fmt.Errorf("upstream %s: %w", server[0].Upstream, err)
	}
	listed := make(map[string][]byte, len(definitions))
	for _, d := range definitions {
		listed[d.Name] = d.JSON
	}
	for _, b := range server {
		w.set(b.Tool, w.compare(b, listed[b.Name]))
	}
	return nil
}

// compare returns how a listed definition compares with the reviewed one. One
// that is not listed, or has no digest, is another.
func (w *Watcher) compare(b Bound, definition []byte) *writv1.Pin {
	changed := &writv1.Pin{State: writv1.PinState_PIN_STATE_CHANGED}
	if definition == nil {
		return changed
	}
	digest, err := w.options.Digest(definition)
	if err != nil {
		w.options.Log.Warn("a tool's definition has no digest", "tool", b.Tool, "error", err)
		return changed
	}
	changed.ObservedDigest = digest
	if digest != b.Digest {
		return changed
	}
	return &writv1.Pin{State: writv1.PinState_PIN_STATE_MATCHED, ObservedDigest: digest}
}

func (w *Watcher) set(tool string, pin *writv1.Pin) {
	before := w.Pin(tool).GetState()
	w.mu.Lock()
	w.pins[tool] = seen{pin: pin, time: w.options.Clock()}
	w.mu.Unlock()
	if before != pin.GetState() && w.options.Changed != nil {
		w.options.Changed(tool, pin)
	}
}

// expire forgets what was seen of a server's tools too long ago to be believed.
// A definition that was seen to be another stays so until it is seen to be right.
func (w *Watcher) expire(server []Bound) {
	oldest := w.options.Clock().Add(-stale * w.options.Interval)
	for _, b := range server {
		w.mu.RLock()
		s, found := w.pins[b.Tool]
		w.mu.RUnlock()
		if found && s.pin.GetState() == writv1.PinState_PIN_STATE_MATCHED && s.time.Before(oldest) {
			w.set(b.Tool, &writv1.Pin{State: writv1.PinState_PIN_STATE_UNSEEN})
		}
	}
}

// forget drops the pins of tools that are bound no more, or otherwise than when
// they were seen.
func (w *Watcher) forget(all []Bound) {
	digests := make(map[string]string, len(all))
	for _, b := range all {
		digests[b.Tool] = b.Digest
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for tool, s := range w.pins {
		digest, bound := digests[tool]
		matched := s.pin.GetState() == writv1.PinState_PIN_STATE_MATCHED
		if !bound || matched != (digest == s.pin.GetObservedDigest()) {
			delete(w.pins, tool)
		}
	}
}
