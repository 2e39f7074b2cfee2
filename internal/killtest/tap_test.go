// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
)

// arrival is a request as it reached the payments service.
type arrival struct {
	method, path, decision, key string
}

// tap stands before the payments service and remembers what arrives: the service
// books a refund once for each idempotency key, so that its books alone would hide
// a call that was let through twice.
type tap struct {
	server *httptest.Server

	// mu guards arrivals.
	mu       sync.Mutex
	arrivals []arrival
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	tap := &tap{}
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: to}) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			// Envoy gave the request up, because the agent died.
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	tap.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tap.remember(arrival{r.Method, r.URL.Path, r.Header.Get("X-Writ-Decision-Id"), r.Header.Get("Idempotency-Key")})
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		tap.server.Close()
		transport.CloseIdleConnections()
	})
	return tap
}

func (tap *tap) remember(a arrival) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.arrivals = append(tap.arrivals, a)
}

// since returns what arrived after the first n.
func (tap *tap) since(n int) []arrival {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return slices.Clone(tap.arrivals[n:])
}

func (tap *tap) address() string { return tap.server.Listener.Addr().String() }
