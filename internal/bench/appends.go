// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// keeper keeps records: keep returns when one is as durable as the keeper makes it.
type keeper interface {
	keep(ctx context.Context) error
	close() error
}

// way is a way to keep records: a ledger's, or the least that does the same to a disk.
type way struct {
	name, title string
	// against is the way that this one is held against, in the same round.
	against string
	open    func(ctx context.Context, on *bench, dir string) (keeper, error)
}

// ways are all that is measured, in the order of a round: what is held against each other
// stands together.
var ways = []way{
	{name: "raw-write", title: "raw: a write(2) each", open: openRawWrite},
	{name: "process", title: "`process`", against: "raw-write", open: openLedger(writv1.Durability_DURABILITY_PROCESS)},
	{name: "raw-group", title: "raw: group commit by write(2)", against: "process", open: openRawGroup(rawWritten)},
	{name: "raw-group-sync", title: "raw: group commit by write(2) and fdatasync(2)", open: openRawGroup(rawSynced)},
	{name: "node", title: "`node`", against: "raw-group-sync", open: openLedger(writv1.Durability_DURABILITY_NODE)},
	{name: "raw-group-remote", title: "raw: the same, and again at the other end of a loopback connection", open: openRawGroup(rawRemote)},
	{name: "remote", title: "`remote`", against: "raw-group-remote", open: openLedger(writv1.Durability_DURABILITY_REMOTE)},
}

// kept is what one round gave of one way.
type kept struct {
	// Rate is records a second of the closed loop; CPU and Allocations are a record's.
	Rate        float64 `json:"records_per_second"`
	CPU         float64 `json:"cpu_microseconds"`
	Allocations float64 `json:"allocations"`
	// P50 and P99 are what a caller waits at the rate of the open loop, PacedCPU what a
	// record costs there.
	P50      float64 `json:"p50_microseconds"`
	P99      float64 `json:"p99_microseconds"`
	PacedCPU float64 `json:"paced_cpu_microseconds"`
	// PacedRate is what the open loop came to.
	PacedRate float64 `json:"paced_records_per_second"`
}

// appends is what all rounds gave of one way.
type appends struct {
	Name   string `json:"name"`
	Rounds []kept `json:"rounds"`

	way way
}

// bench is what the ways of one run share.
type bench struct {
	at        places
	sample    *recorded
	collector *collectorProcess
	store     *process
	storeAt   string
}

// measureAppends measures each way once a round, and every second round backwards.
// Round 0 warms up and counts for nothing.
func measureAppends(ctx context.Context, at places, set ledgerSettings, sample *recorded, progress io.Writer) (all []*appends, err error) {
	on := &bench{at: at, sample: sample}
	if on.collector, err = startCollector(ctx, at); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, on.collector.stop()) }()
	if err := on.startRawStore(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, on.store.stop()) }()
	var order []*appends
	for _, w := range ways {
		all = append(all, &appends{Name: w.name, way: w})
	}
	order = slices.Clone(all)
	for round := range set.Rounds + 1 {
		progressOf(progress, "append, round", round, set.Rounds)
		for _, a := range order {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			one, err := on.measure(ctx, a.way, set)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.Name, err)
			}
			if round > 0 {
				a.Rounds = append(a.Rounds, one)
			}
		}
		slices.Reverse(order)
	}
	return all, nil
}

// measure puts both loads on a way, each on a file or ledger of its own: what one left
// to be written is not another's.
func (on *bench) measure(ctx context.Context, w way, set ledgerSettings) (kept, error) {
	var out kept
	err := on.with(ctx, w, func(k keeper) error {
		n, took, cpu, allocations, err := measured(func() (int, error) { return hammer(ctx, k, set.Writers, set.Load) })
		count := float64(max(n, 1))
		out.Rate, out.CPU, out.Allocations = float64(n)/took.Seconds(), micros(cpu)/count, float64(allocations)/count
		return err
	})
	if err != nil {
		return out, err
	}
	err = on.with(ctx, w, func(k keeper) error {
		var waits []time.Duration
		n, took, cpu, _, err := measured(func() (int, error) {
			var err error
			waits, err = keepAtRate(ctx, k, set.Writers, set.Rate, set.Load)
			return len(waits), err
		})
		if n > 0 {
			out.P50, out.P99, out.PacedCPU = micros(waits[n/2]), micros(waits[n*99/100]), micros(cpu)/float64(n)
			out.PacedRate = float64(n) / took.Seconds()
		}
		return err
	})
	return out, err
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// with opens a way in a directory of its own, and removes it.
func (on *bench) with(ctx context.Context, w way, do func(keeper) error) (err error) {
	dir, err := os.MkdirTemp(on.at.data, w.name)
	if err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	k, err := w.open(ctx, on, filepath.Join(dir, "kept"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	if err := k.keep(ctx); err != nil {
		return err
	}
	return do(k)
}

// measured counts what this process spends on something. Garbage of before is not its.
func measured(do func() (int, error)) (n int, took, cpu time.Duration, allocations uint64, err error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpuBefore, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, 0, 0, 0, err
	}
	start := time.Now()
	if n, err = do(); err != nil {
		return 0, 0, 0, 0, err
	}
	took = time.Since(start)
	cpuAfter, err := cpuTime(os.Getpid())
	runtime.ReadMemStats(&after)
	return n, took, cpuAfter - cpuBefore, after.Mallocs - before.Mallocs, err
}

// hammer has so many writers keep records, each the next when the last is kept.
func hammer(ctx context.Context, k keeper, writers int, d time.Duration) (int, error) {
	var over atomic.Bool
	timer := time.AfterFunc(d, func() { over.Store(true) })
	defer timer.Stop()
	counts, errs := make([]int, writers), make([]error, writers)
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			n := 0
			for errs[i] == nil && !over.Load() {
				errs[i] = k.keep(ctx)
				n++
			}
			counts[i] = n
		})
	}
	group.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return total, errors.Join(errs...)
}

// keepAtRate has records kept at a fixed rate, each by a writer who was idle, and
// returns how long each of them waited, sorted. A way that is too slow for the rate
// runs out of writers, and then the waits do not tell all of it: the rate does.
func keepAtRate(ctx context.Context, k keeper, writers, rate int, d time.Duration) ([]time.Duration, error) {
	total := max(int(d.Seconds()*float64(rate)), 1)
	due, waits, errs := make(chan struct{}), make([][]time.Duration, writers), make([]error, writers)
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for range due {
				start := time.Now()
				if err := k.keep(ctx); err != nil {
					errs[i] = err
					continue
				}
				waits[i] = append(waits[i], time.Since(start))
			}
		})
	}
	err := beat(time.Now(), total, rate, func(time.Time) bool {
		due <- struct{}{}
		return true
	})
	close(due)
	group.Wait()
	all := slices.Concat(waits...)
	slices.Sort(all)
	return all, errors.Join(append(errs, err)...)
}
