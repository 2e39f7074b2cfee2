// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package sandbox

import (
	"sync"
	"time"
)

// How long it is from one look to the next: ten times as long as the look took, so that looking is a tenth
// of one processor at most, within bounds: the upper is what an overshoot is worth on a busy machine.
const (
	watchShare = 10
	watchLeast = 10 * time.Millisecond
	watchMost  = 100 * time.Millisecond
)

// watched is one run under watch. Its fields do not change.
type watched struct {
	group   int
	limits  Limits
	scratch *scratch // nil if there is none
	exceeds func(Limit)
}

// watcher looks at all runs of a Runner, in one pass over /proc, as long as there are any.
type watcher struct {
	mu   sync.Mutex
	runs map[*watched]struct{} // guarded by mu
	// quit ends the loop, and done is closed at its end. Both are guarded by mu and nil while none runs.
	quit, done chan struct{}
}

// add puts a run under watch and returns what takes it off again.
func (w *watcher) add(r *watched) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs == nil {
		w.runs = make(map[*watched]struct{})
	}
	w.runs[r] = struct{}{}
	if w.quit == nil {
		w.quit, w.done = make(chan struct{}), make(chan struct{})
		go w.loop(w.quit, w.done)
	}
	return sync.OnceFunc(func() { w.remove(r) })
}

// remove takes a run off. With the last one the loop ends, and remove waits for it, so that no descriptor
// of a look under way outlives the run.
func (w *watcher) remove(r *watched) {
	w.mu.Lock()
	delete(w.runs, r)
	if len(w.runs) > 0 {
		w.mu.Unlock()
		return
	}
	quit, done := w.quit, w.done
	w.quit, w.done = nil, nil
	w.mu.Unlock()
	close(quit)
	<-done
}

func (w *watcher) loop(quit <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	timer := time.NewTimer(watchLeast)
	defer timer.Stop()
	for {
		select {
		case <-quit:
			return
		case <-timer.C:
		}
		begun := time.Now()
		w.look()
		timer.Reset(min(max(watchShare*time.Since(begun), watchLeast), watchMost))
	}
}

func (w *watcher) look() {
	w.mu.Lock()
	runs := make(map[*watched]*usage, len(w.runs))
	groups := make(map[int]*usage, len(w.runs))
	for r := range w.runs {
		u := new(usage)
		runs[r], groups[r.group] = u, u
	}
	w.mu.Unlock()
	measure(groups)
	for r, u := range runs {
		if l := r.exceeded(u); l != LimitNone {
			r.exceeds(l)
		}
	}
}

func (r *watched) exceeded(u *usage) Limit {
	switch {
	case u.threads > r.limits.Processes:
		return LimitProcesses
	case u.memory > r.limits.Memory:
		return LimitMemory
	case u.cpu > r.limits.CPU:
		return LimitCPU
	case r.scratch != nil && r.scratch.exceeds(r.limits.Disk, r.limits.DiskEntries):
		return LimitDisk
	}
	return LimitNone
}
