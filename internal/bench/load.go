// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds how long the last answers of a load are waited for.
const answerTimeout = 20 * time.Second

// load is what was sent and how it went.
type load struct {
	requests int
	duration time.Duration
	// latencies are sorted; a closed loop has none.
	latencies []time.Duration
}

// closedLoop sends over so many connections, on each as fast as answers come.
func closedLoop(ctx context.Context, address string, connections int, d time.Duration) (load, error) {
	open, err := dialAll(ctx, address, connections)
	if err != nil {
		return load{}, err
	}
	counts, errs := make([]int, connections), make([]error, connections)
	start := time.Now()
	var group sync.WaitGroup
	for i, c := range open {
		group.Go(func() {
			defer c.conn.Close()
			// One at least, so that no round is without a call.
			for ok := true; ok; ok = errs[i] == nil && time.Since(start) < d {
				errs[i] = c.ask()
				counts[i]++
			}
		})
	}
	group.Wait()
	out := load{duration: time.Since(start)}
	for _, n := range counts {
		out.requests += n
	}
	return out, errors.Join(errs...)
}

func dialAll(ctx context.Context, address string, connections int) ([]*connection, error) {
	var open []*connection
	for range connections {
		c, err := dial(ctx, address)
		if err != nil {
			for _, c := range open {
				c.conn.Close()
			}
			return nil, err
		}
		open = append(open, c)
	}
	return open, nil
}

// lane is a connection of an open loop, with what its receiver keeps.
type lane struct {
	*connection
	due       chan time.Time
	latencies []time.Duration
	err       error
}

// openLoop sends at a fixed rate whatever the answers do, each call over a
// connection that is idle. A latency counts from the moment its call was due, not
// from when it could be sent, so that a stall of the server is not hidden by the
// calls that it kept from being sent ("coordinated omission": G. Tene, "How NOT to
// measure latency"; wrk2).
func openLoop(ctx context.Context, address string, connections, rate int, d time.Duration) (load, error) {
	open, err := dialAll(ctx, address, connections)
	if err != nil {
		return load{}, err
	}
	idle := make(chan *lane, connections)
	lanes := make([]*lane, connections)
	var group sync.WaitGroup
	for i, c := range open {
		defer c.conn.Close()
		lanes[i] = &lane{connection: c, due: make(chan time.Time, 1)}
		idle <- lanes[i]
		group.Go(func() { lanes[i].receiveAll(idle) })
	}
	start := time.Now()
	total := int(d.Seconds() * float64(rate))
	err = pace(start, total, rate, idle)
	for _, l := range lanes {
		close(l.due)
		err = errors.Join(err, l.conn.SetReadDeadline(time.Now().Add(answerTimeout)))
	}
	group.Wait()
	out := load{requests: total, duration: time.Since(start)}
	for _, l := range lanes {
		err = errors.Join(err, l.err)
		out.latencies = append(out.latencies, l.latencies...)
	}
	slices.Sort(out.latencies)
	return out, err
}

// receiveAll receives the answers of a lane until it is closed.
func (l *lane) receiveAll(idle chan<- *lane) {
	for at := range l.due {
		if l.err == nil {
			l.err = l.receive()
		}
		l.latencies = append(l.latencies, time.Since(at))
		idle <- l
	}
}

// pace sends total calls at the moments they are due.
func pace(start time.Time, total, rate int, idle <-chan *lane) error {
	var failed error
	err := beat(start, total, rate, func(at time.Time) bool {
		l := <-idle
		if failed = l.err; failed == nil {
			failed = l.send()
		}
		if failed == nil {
			l.due <- at
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// beat calls something total times, at the moments that are due, until it says that it
// is over. It sleeps in the kernel on a thread of its own: the runtime's timers round up
// to a millisecond on an idle machine (golang.org/issue/44343), which is all there is
// between two calls.
func beat(start time.Time, total, rate int, call func(due time.Time) (goOn bool)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for n := range total {
		at := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
		if wait := time.Until(at); wait > 0 {
			span := unix.NsecToTimespec(wait.Nanoseconds())
			// A sleep cut short by a signal calls early by that much.
			if err := unix.Nanosleep(&span, nil); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("sleep: %w", err)
			}
		}
		if !call(at) {
			break
		}
	}
	return nil
}

// percentile returns the p-th of the latencies, 0 < p < 1.
func (l load) percentile(p float64) time.Duration {
	if len(l.latencies) == 0 {
		return 0
	}
	return l.latencies[min(len(l.latencies)-1, int(p*float64(len(l.latencies))))]
}
