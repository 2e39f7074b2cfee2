// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the CPU time that a process used so far, in user and kernel mode,
// by its own CPU clock (clock_getcpuclockid(3)): in nanoseconds and with the threads
// that are gone, where /proc/PID/stat counts hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	// The clock's number is made as <linux/posix-timers.h> does: CPUCLOCK_SCHED.
	const sched = 2
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &now); err != nil {
		return 0, fmt.Errorf("read the CPU clock of %d: %w", pid, err)
	}
	return time.Duration(now.Nano()), nil
}

// peakMemory returns the most bytes that a process had resident.
func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %d: %w", pid, err)
	}
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != "VmHWM:" {
			continue
		}
		kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the memory of %d: %w", pid, err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("read the memory of %d: no VmHWM", pid)
}

// interval is a median with its confidence interval.
type interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	// Coverage is the probability that such an interval holds the true median.
	Coverage float64 `json:"coverage"`
}

// confidence is what an interval's coverage is at least, if there are values enough
// (six); else the interval is all of them.
const confidence = 0.95

// intervalOf returns the median of values and the distribution-free interval between
// two order statistics (Hahn and Meeker, Statistical Intervals, section 5.2; Conover,
// Practical Nonparametric Statistics, section 3.2): the narrowest symmetric one whose
// exact binomial coverage is enough. It assumes nothing but that rounds are
// independent.
func intervalOf(values []float64) interval {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return interval{}
	}
	// The k-th smallest and the k-th largest miss the median with twice the
	// probability that less than k of n fall below it.
	k, tail := 1, math.Pow(0.5, float64(n))
	for next := tail; ; k++ {
		next += math.Exp(logChoose(n, k) - float64(n)*math.Ln2)
		if 1-2*next < confidence || k+1 > n/2 {
			break
		}
		tail = next
	}
	return interval{
		Median:   (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Low:      sorted[k-1],
		High:     sorted[n-k],
		Coverage: max(0, 1-2*tail),
	}
}

// logChoose returns the logarithm of the binomial coefficient.
func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

// String prints the interval as ratios are printed.
func (i interval) String() string {
	return fmt.Sprintf("%.2f [%.2f, %.2f]", i.Median, i.Low, i.High)
}
