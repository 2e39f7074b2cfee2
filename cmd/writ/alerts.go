// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/planner/webhook"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// openAlerts makes what posts alerts, where the configuration says where to.
func (p *parts) openAlerts() error {
	config := p.config.GetAlertWebhook()
	if config == nil {
		return nil
	}
	secret, err := webhook.ReadSecret(config.GetSecretFile())
	if err != nil {
		return fmt.Errorf("alert_webhook.secret_file: %w", err)
	}
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_alert_webhook_attempts_total",
		Help: "Attempts to post an alert, by what became of them.",
	}, []string{"result"})
	p.registry.MustRegister(attempts)
	p.alerts, err = webhook.New(webhook.Options{
		URL: config.GetUrl(), Secret: secret, Clock: time.Now, Log: p.log,
		Done: func(taken webhook.Taken) {
			attempts.WithLabelValues([...]string{"delivered", "retried", "dropped"}[taken]).Inc()
		},
	})
	if err != nil {
		return fmt.Errorf("alert_webhook.url: %w", err)
	}
	return nil
}

// alert logs an alert, and has it posted.
func (p *parts) alert(record *writv1.AlertRecord) {
	p.log.Warn("alert", "kind", alertKind(record), "budget", record.GetBudget(), "percent", record.GetPercent(),
		"taken", record.GetTaken(), "limit", record.GetLimit(), "drifts", record.GetDrift().GetSeries())
	if p.alerts == nil {
		return
	}
	id, body, err := alertMessage(record)
	if err == nil {
		err = p.alerts.Send(id, body)
	}
	if err != nil {
		p.log.Error("an alert was not posted; it stands in the ledger", "kind", alertKind(record), "error", err)
	}
}

func alertKind(record *writv1.AlertRecord) string {
	return strings.ToLower(strings.TrimPrefix(record.GetKind().String(), "ALERT_KIND_"))
}

// alertMessage returns an alert as the Standard Webhooks specification has messages:
// type, timestamp and data. Its id is that of what it says.
func alertMessage(record *writv1.AlertRecord) (id string, body []byte, err error) {
	text, err := canonical.Marshal(record)
	if err != nil {
		return "", nil, fmt.Errorf("make the message of an alert: %w", err)
	}
	sum := sha256.Sum256(text)
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(record)
	if err != nil {
		return "", nil, fmt.Errorf("make the message of an alert: %w", err)
	}
	// protojson varies its spaces on purpose.
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return "", nil, fmt.Errorf("make the message of an alert: %w", err)
	}
	body, err = json.Marshal(struct {
		Type      string          `json:"type"`
		Timestamp string          `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}{"writ.alert." + alertKind(record), record.GetTime().AsTime().Format(time.RFC3339Nano), compact.Bytes()})
	if err != nil {
		return "", nil, fmt.Errorf("make the message of an alert: %w", err)
	}
	return "alert_" + hex.EncodeToString(sum[:16]), body, nil
}
