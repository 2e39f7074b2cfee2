// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/planner/webhook"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestAFindingIsPostedSignedAndTellsNothingOfATenant(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan []byte, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(key, r.Header, body, time.Now())
		}
		if err != nil {
			t.Error(err)
		}
		came <- []byte(r.Header.Get(webhook.HeaderID))
		came <- body
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	sender, err := openWebhook("finding", &writv1.WebhookConfig{Url: server.URL, SecretFile: file}, prometheus.NewRegistry(), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { sender.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	teller(sender, log)(store.Finding{Origin: "desk", Kind: "fork", Detail: "two trees", HeldSize: 7, HeldRoot: []byte{1, 2}, Head: []byte("a head"), Time: time.Unix(0, 0)})
	id, body := <-came, <-came
	var message struct {
		Type, Timestamp string
		Data            map[string]any
	}
	if err := json.Unmarshal(body, &message); err != nil {
		t.Fatal(err)
	}
	if message.Type != "writ.finding.fork" || len(id) != len("finding_")+32 || message.Data["held_root"] != "0102" || message.Data["head"] != "a head" {
		t.Errorf("message %s is %s", id, body)
	}
	if diff := cmp.Diff([]string{"detail", "head", "held_root", "held_size", "kind", "origin"}, slices.Sorted(maps.Keys(message.Data))); diff != "" {
		t.Errorf("what is told (-want +got):\n%s", diff)
	}
	if teller(nil, log) != nil {
		t.Error("without a webhook somebody is told")
	}
}
