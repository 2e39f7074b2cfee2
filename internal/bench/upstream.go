// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// answer is what the upstream says of every order, about 1 KiB.
//
//go:embed testdata/answer.json
var answer string

// serveUpstream answers every request with the order that its path names.
func serveUpstream(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	before, after, _ := strings.Cut(strings.TrimSpace(answer), "%s")
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tenants/{tenant}/orders/{order}/quote", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, before+r.PathValue("order")+after)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
