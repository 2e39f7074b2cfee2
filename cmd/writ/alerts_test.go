// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/planner/webhook"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestAnAlertIsPostedSigned(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	type posted struct {
		body []byte
		err  error
	}
	came := make(chan posted, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(key, r.Header, body, time.Now())
		}
		came <- posted{body, err}
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &parts{log: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry(), config: &writv1.AgentConfig{
		AlertWebhook: &writv1.WebhookConfig{Url: server.URL, SecretFile: file},
	}}
	if err := p.openWebhooks(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.alerts.Run(ctx); close(done) }()
	p.alert(&writv1.AlertRecord{
		Kind: writv1.AlertKind_ALERT_KIND_THRESHOLD, Time: timestamppb.New(time.Unix(0, 0)), Budget: "fees", Percent: 80, Taken: 85, Limit: 100,
	})
	got := <-came
	cancel()
	<-done
	if got.err != nil {
		t.Error(got.err)
	}
	var message struct {
		Type, Timestamp string
		Data            map[string]any
	}
	if err := json.Unmarshal(got.body, &message); err != nil {
		t.Fatal(err)
	}
	if message.Type != "writ.alert.threshold" || message.Timestamp != "1970-01-01T00:00:00Z" || message.Data["budget"] != "fees" || message.Data["taken"] != "85" {
		t.Errorf("message %s", got.body)
	}
}

func TestAWebhookThatOthersCouldReadIsRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &parts{registry: prometheus.NewRegistry(), config: &writv1.AgentConfig{
		AlertWebhook: &writv1.WebhookConfig{Url: "http://chat.example/", SecretFile: file},
	}}
	if err := p.openWebhooks(); err == nil {
		t.Error("plain HTTP to another host is taken")
	}
}
