// SPDX-License-Identifier: Apache-2.0

// White box: a program has no API to test.
package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// shop answers as the upstream does, but for what meet does before.
func shop(t *testing.T, meet func(call int64, w http.ResponseWriter) (done bool)) string {
	t.Helper()
	var seen atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meet(seen.Add(1), w) {
			return
		}
		_, _ = w.Write([]byte(strings.Split(r.URL.Path, "/")[5]))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAStallCountsForEveryCallThatWasDueInIt(t *testing.T) {
	t.Parallel()
	const stall = 300 * time.Millisecond
	var gate sync.Mutex
	address := shop(t, func(call int64, _ http.ResponseWriter) bool {
		gate.Lock()
		defer gate.Unlock()
		if call == 50 {
			<-time.After(stall)
		}
		return false
	})
	// Four connections are soon all in the stall: most calls due in it cannot even be sent.
	got, err := openLoop(t.Context(), address, 4, 200, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got.requests != 200 || len(got.latencies) != 200 {
		t.Fatalf("%d calls with %d latencies, want 200", got.requests, len(got.latencies))
	}
	late := 0
	for _, latency := range got.latencies {
		if latency > 20*time.Millisecond {
			late++
		}
	}
	// 60 calls are due in 300 ms; those of its last 20 ms are not late.
	if late < 50 {
		t.Errorf("%d calls are late, want the 50 and more that were due in the stall", late)
	}
	if top := got.percentile(0.999); top < stall {
		t.Errorf("the slowest call took %s, want the stall of %s at least", top, stall)
	}
}

func TestAnAnswerThatIsNotTheUpstreamsEndsTheLoad(t *testing.T) {
	t.Parallel()
	for name, meet := range map[string]func(int64, http.ResponseWriter) bool{
		"a refusal": func(call int64, w http.ResponseWriter) bool {
			if call == 20 {
				w.WriteHeader(http.StatusForbidden)
			}
			return call == 20
		},
		"another call's answer": func(call int64, w http.ResponseWriter) bool {
			if call == 20 {
				_, _ = w.Write([]byte(orderOf(0)))
			}
			return call == 20
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := closedLoop(t.Context(), shop(t, meet), 2, 200*time.Millisecond); err == nil {
				t.Error("the closed loop saw nothing")
			}
			if _, err := openLoop(t.Context(), shop(t, meet), 2, 500, 200*time.Millisecond); err == nil {
				t.Error("the open loop saw nothing")
			}
		})
	}
}

func TestAClosedLoopCountsWhatWasAnswered(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	address := shop(t, func(int64, http.ResponseWriter) bool { seen.Add(1); return false })
	got, err := closedLoop(t.Context(), address, 3, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if int64(got.requests) != seen.Load() || got.requests == 0 {
		t.Errorf("%d requests, the server saw %d", got.requests, seen.Load())
	}
}
