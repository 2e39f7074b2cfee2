// SPDX-License-Identifier: Apache-2.0

package mcp_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/mcp"
)

const (
	unseen  = writv1.PinState_PIN_STATE_UNSEEN
	matched = writv1.PinState_PIN_STATE_MATCHED
	changed = writv1.PinState_PIN_STATE_CHANGED
)

var errAway = errors.New("the server is away")

// world is what servers list, and a watcher that looks at it.
type world struct {
	bound   []mcp.Bound
	mu      sync.Mutex                  // guards listed, where a watcher runs
	listed  map[string][]mcp.Definition // by upstream; absent is away
	heard   []string
	now     time.Time
	looks   atomic.Int64
	watcher *mcp.Watcher
}

// newWorld binds the tools "a.x" and "a.y" of one server and "b.z" of another.
// The digest of a definition is its text.
func newWorld() *world {
	w := &world{
		bound: []mcp.Bound{
			{Tool: "a.x", Upstream: "a", Path: "/mcp", Name: "x", Digest: `{"x":1}`},
			{Tool: "b.z", Upstream: "b", Path: "/mcp", Name: "z", Digest: `{"z":1}`},
			{Tool: "a.y", Upstream: "a", Path: "/mcp", Name: "y", Digest: `{"y":1}`},
		},
		listed: map[string][]mcp.Definition{
			"a": {{Name: "x", JSON: []byte(`{"x":1}`)}, {Name: "y", JSON: []byte(`{"y":1}`)}, {Name: "other", JSON: []byte(`{}`)}},
			"b": {{Name: "z", JSON: []byte(`{"z":1}`)}},
		},
		now: time.Unix(1_800_000_000, 0),
	}
	w.watcher = mcp.NewWatcher(mcp.Options{
		Bound: func() []mcp.Bound { return w.bound },
		List: func(_ context.Context, upstream, _ string) ([]mcp.Definition, error) {
			w.looks.Add(1)
			w.mu.Lock()
			defer w.mu.Unlock()
			if listed, found := w.listed[upstream]; found {
				return listed, nil
			}
			return nil, errAway
		},
		Digest: func(definition []byte) (string, error) {
			if string(definition) == "{}" {
				return "", errors.New("no digest")
			}
			return string(definition), nil
		},
		Changed:  func(tool string, pin *writv1.Pin) { w.heard = append(w.heard, tool+" "+pin.GetState().String()) },
		Interval: time.Minute,
		Clock:    func() time.Time { return w.now },
	})
	return w
}

func (w *world) states() []writv1.PinState {
	var states []writv1.PinState
	for _, tool := range []string{"a.x", "a.y", "b.z"} {
		states = append(states, w.watcher.Pin(tool).GetState())
	}
	return states
}

func (w *world) check(t *testing.T, want ...writv1.PinState) {
	t.Helper()
	if diff := cmp.Diff(want, w.states()); diff != "" {
		t.Errorf("pins of a.x, a.y, b.z (-want +got):\n%s", diff)
	}
}

func (w *world) look(t *testing.T, want error) {
	t.Helper()
	if err := w.watcher.Look(t.Context()); !errors.Is(err, want) {
		t.Errorf("Look: %v, want %v", err, want)
	}
}

func TestAPinFollowsWhatTheServerLists(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.check(t, unseen, unseen, unseen)
	w.look(t, nil)
	w.check(t, matched, matched, matched)
	w.listed["a"] = []mcp.Definition{{Name: "x", JSON: []byte(`{"x":2}`)}}
	w.look(t, nil)
	w.check(t, changed, changed, matched)
	if got := w.watcher.Pin("a.x").GetObservedDigest(); got != `{"x":2}` {
		t.Errorf("observed digest %q, want that of what is listed", got)
	}
	w.listed["a"] = []mcp.Definition{{Name: "x", JSON: []byte(`{}`)}, {Name: "y", JSON: []byte(`{"y":1}`)}}
	w.look(t, nil)
	w.check(t, changed, matched, matched)
	want := []string{
		"a.x PIN_STATE_MATCHED", "a.y PIN_STATE_MATCHED", "b.z PIN_STATE_MATCHED",
		"a.x PIN_STATE_CHANGED", "a.y PIN_STATE_CHANGED", "a.y PIN_STATE_MATCHED",
	}
	if diff := cmp.Diff(want, w.heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

func TestAPinThatCannotBeRenewedIsBelievedForTwoIntervals(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.look(t, nil)
	w.listed["b"] = []mcp.Definition{{Name: "z", JSON: []byte(`{"z":2}`)}}
	w.look(t, nil)
	delete(w.listed, "a")
	delete(w.listed, "b")
	w.now = w.now.Add(2 * time.Minute)
	w.look(t, errAway)
	w.check(t, matched, matched, changed)
	w.now = w.now.Add(time.Second)
	w.look(t, errAway)
	w.check(t, unseen, unseen, changed)
}

func TestOneServerAwayDoesNotHideAnother(t *testing.T) {
	t.Parallel()
	w := newWorld()
	delete(w.listed, "a")
	w.look(t, errAway)
	w.check(t, unseen, unseen, matched)
}

func TestAPinIsDroppedWhenTheBindingChanges(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.look(t, nil)
	w.bound[0].Digest = `{"x":2}`
	w.bound = w.bound[:2]
	delete(w.listed, "a")
	w.look(t, errAway)
	w.check(t, unseen, unseen, matched)
}

func TestRunLooksAgainSoonerWhileAServerIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		delete(w.listed, "a")
		ctx, cancel := context.WithCancel(t.Context())
		go w.watcher.Run(ctx)
		check := func(when string, d time.Duration, want int64) {
			t.Helper()
			time.Sleep(d) // the bubble's clock, not the wall's
			synctest.Wait()
			if got := w.looks.Swap(0); got != want {
				t.Errorf("%d listings %s, want %d", got, when, want)
			}
		}
		check("at 0, 1, 3 and 7 s while a server is away", 10*time.Second, 8)
		w.mu.Lock()
		w.listed["a"] = nil
		w.mu.Unlock()
		check("at 15 s, when it is back", 8*time.Second, 2)
		check("before the interval is over", 45*time.Second, 0)
		check("after it", 20*time.Second, 2)
		cancel()
		synctest.Wait()
	})
}
