// SPDX-License-Identifier: Apache-2.0

// Command payments is the refund desk's payments service: it refunds payments and
// tells what was refunded, over HTTP, and keeps its books in SQLite.
//
// It stands for a service of your own. It knows nothing of policy: it refunds what
// reaches it, whoever asks, up to what was paid. It keeps the decision's id and
// the idempotency key that came with each refund, so that the books can be held
// against the ledger. With --token-keys it also demands a decision token.
//
// Usage:
//
//	payments --listen 127.0.0.1:9101 --db payments.db --seed seed.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/writ-dev/writ/ledger/token"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "payments: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("payments", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9101", "address to listen on")
	path := flags.String("db", "payments.db", "SQLite file of the books")
	seed := flags.String("seed", "", "JSON file of payments to begin with")
	keys := flags.String("token-keys", "", "JWK set of the agent's token keys; demands a decision token on refunds")
	issuer := flags.String("token-issuer", "", "origin of the agent's ledger, with --token-keys")
	if err := flags.Parse(args); err != nil {
		return err
	}
	books, err := openBooks(ctx, *path)
	if err != nil {
		return fmt.Errorf("open the books: %w", err)
	}
	defer books.close()
	if *seed != "" {
		if err := seedBooks(ctx, books, *seed); err != nil {
			return fmt.Errorf("seed the books: %w", err)
		}
	}
	verifier, err := verifierOf(*keys, *issuer)
	if err != nil {
		return fmt.Errorf("read the token keys: %w", err)
	}
	return serve(ctx, *listen, newAPI(books, verifier))
}

// verifierOf returns nil when no keys are named: then no token is demanded.
func verifierOf(path, issuer string) (*token.Verifier, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := token.ReadKeySet(data)
	if err != nil {
		return nil, err
	}
	return &token.Verifier{Audience: "payments", Issuer: issuer, Keys: keys}, nil
}

func seedBooks(ctx context.Context, books *books, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var payments []payment
	if err := json.Unmarshal(data, &payments); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return books.seed(ctx, payments)
}

// drainTimeout is how long requests under way may take at the end. It is longer than
// the five seconds for which Shutdown waits on a connection that has sent nothing.
const drainTimeout = 15 * time.Second

func serve(ctx context.Context, address string, handler http.Handler) error {
	server := &http.Server{
		Addr:              address,
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
