// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// settle is how long a filter gets to end what a load left behind, so that it is
// counted: Envoy's access log comes up to 100 ms late, and outcomes are recorded then.
const settle = 300 * time.Millisecond

// settings say how a run measures.
type settings struct {
	// Rounds is how often all rows are measured.
	Rounds int `json:"rounds"`
	// Load is how long each of a row's two loads lasts in a round.
	Load time.Duration `json:"load_nanoseconds"`
	// Connections are those of the closed loop, and the most of the open one.
	Connections int `json:"connections"`
	// Rate is that of the open loop, in calls a second.
	Rate int `json:"rate_per_second"`
}

// sample is what one round gave of one row. CPU is in seconds per 1,000 requests.
type sample struct {
	Throughput    float64 `json:"requests_per_second"`
	ServerCPU     float64 `json:"server_cpu_closed"`
	EnvoyCPU      float64 `json:"envoy_cpu_closed"`
	OpenRate      float64 `json:"open_requests_per_second"`
	P50           float64 `json:"p50_milliseconds"`
	P99           float64 `json:"p99_milliseconds"`
	OpenServerCPU float64 `json:"server_cpu_open"`
	OpenEnvoyCPU  float64 `json:"envoy_cpu_open"`
}

// result is what all rounds gave of one row.
type result struct {
	row     row
	samples []sample
	// memory and envoyMemory are the most that was resident.
	memory, envoyMemory int64
}

// measure starts everything, measures all rounds and stops everything.
func measure(ctx context.Context, at places, set settings, chosen []row, progress io.Writer) (results []*result, err error) {
	upstream, err := startUpstream(ctx, &at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	var stands []*stand
	defer func() {
		for _, s := range stands {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, r := range chosen {
		s, err := startStand(ctx, at, r)
		if s != nil {
			stands = append(stands, s)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		results = append(results, &result{row: r})
	}
	return results, rounds(ctx, set, stands, results, progress)
}

func startUpstream(ctx context.Context, at *places) (*process, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	at.upstream = address
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return start(at.data, "upstream", self, upstreamCommand, address)
}

// rounds measures each row once a round. Every second round goes backwards, so that
// what drifts favours no row. Round 0 warms up and counts for nothing.
func rounds(ctx context.Context, set settings, stands []*stand, results []*result, progress io.Writer) error {
	order := make([]int, len(stands))
	for i := range order {
		order[i] = i
	}
	for round := range set.Rounds + 1 {
		fmt.Fprintf(progress, "bench: round %d of %d\n", round, set.Rounds)
		for _, i := range order {
			if err := ctx.Err(); err != nil {
				return err
			}
			one, err := stands[i].measure(ctx, set)
			if err != nil {
				return fmt.Errorf("%s: %w", stands[i].name, err)
			}
			if round > 0 {
				results[i].samples = append(results[i].samples, one)
			}
		}
		slices.Reverse(order)
	}
	for i, s := range stands {
		if err := s.memory(results[i]); err != nil {
			return err
		}
	}
	return nil
}

// measure puts both loads on a row.
func (s *stand) measure(ctx context.Context, set settings) (sample, error) {
	closed, server, envoy, err := s.load(func() (load, error) {
		return closedLoop(ctx, s.address, set.Connections, set.Load)
	})
	if err != nil {
		return sample{}, fmt.Errorf("closed loop: %w", err)
	}
	out := sample{Throughput: float64(closed.requests) / closed.duration.Seconds(), ServerCPU: server, EnvoyCPU: envoy}
	open, server, envoy, err := s.load(func() (load, error) {
		return openLoop(ctx, s.address, set.Connections, set.Rate, set.Load)
	})
	if err != nil {
		return sample{}, fmt.Errorf("open loop: %w", err)
	}
	out.OpenRate = float64(open.requests) / open.duration.Seconds()
	out.P50, out.P99 = milliseconds(open.percentile(0.50)), milliseconds(open.percentile(0.99))
	out.OpenServerCPU, out.OpenEnvoyCPU = server, envoy
	return out, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// load puts one load on a row, and returns the CPU seconds that the filter's server
// and Envoy took for 1,000 requests.
func (s *stand) load(put func() (load, error)) (done load, server, envoy float64, err error) {
	serverBefore, envoyBefore, err := s.cpu()
	if err != nil {
		return load{}, 0, 0, err
	}
	if done, err = put(); err != nil {
		return load{}, 0, 0, err
	}
	time.Sleep(settle)
	serverAfter, envoyAfter, err := s.cpu()
	thousands := float64(done.requests) / 1000
	return done, (serverAfter - serverBefore).Seconds() / thousands, (envoyAfter - envoyBefore).Seconds() / thousands, err
}

// cpu returns the CPU time that a row's programs took so far.
func (s *stand) cpu() (server, envoy time.Duration, err error) {
	if s.filter != nil {
		if server, err = cpuTime(s.filter.pid()); err != nil {
			return 0, 0, err
		}
	}
	envoy, err = cpuTime(s.envoy.pid())
	return server, envoy, err
}

func (s *stand) memory(into *result) (err error) {
	if s.filter != nil {
		if into.memory, err = peakMemory(s.filter.pid()); err != nil {
			return err
		}
	}
	into.envoyMemory, err = peakMemory(s.envoy.pid())
	return err
}

// makePlaces makes the directories of a run: one on the disk that dir is on, one with
// a name that is short enough for a socket.
func makePlaces(dir string) (at places, remove func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return at, nil, fmt.Errorf("make the directory: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return at, nil, fmt.Errorf("make the directory: %w", err)
	}
	if at.data, err = os.MkdirTemp(dir, "run"); err != nil {
		return at, nil, fmt.Errorf("make the directory: %w", err)
	}
	if at.sockets, err = os.MkdirTemp("", "w"); err != nil {
		return at, nil, errors.Join(fmt.Errorf("make the directory: %w", err), os.RemoveAll(at.data))
	}
	return at, func() error { return errors.Join(os.RemoveAll(at.data), os.RemoveAll(at.sockets)) }, nil
}
