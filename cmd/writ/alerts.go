// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/planner/webhook"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// openWebhooks makes what posts alerts, and what waits for an approval, where the
// configuration says where to.
func (p *parts) openWebhooks() error {
	var err error
	if p.alerts, err = openWebhook("alert", p.config.GetAlertWebhook(), p.registry, p.log); err != nil {
		return err
	}
	p.asks, err = openWebhook("approval", p.config.GetApprovalWebhook(), p.registry, p.log)
	return err
}

// openWebhook makes what posts messages of a kind; nil where there is no webhook.
func openWebhook(kind string, config *writv1.WebhookConfig, registry prometheus.Registerer, log *slog.Logger) (*webhook.Sender, error) {
	if config == nil {
		return nil, nil
	}
	secret, err := webhook.ReadSecret(config.GetSecretFile())
	if err != nil {
		return nil, fmt.Errorf("%s_webhook.secret_file: %w", kind, err)
	}
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_" + kind + "_webhook_attempts_total",
		Help: "Attempts to post a message of the kind " + kind + ", by what became of them.",
	}, []string{"result"})
	registry.MustRegister(attempts)
	results := [...]string{"delivered", "retried", "dropped"}
	for _, result := range results {
		// A count that is not there yet cannot be seen to rise.
		attempts.WithLabelValues(result)
	}
	sender, err := webhook.New(webhook.Options{
		URL: config.GetUrl(), Secret: secret, Clock: time.Now, Log: log,
		Done: func(taken webhook.Taken) {
			attempts.WithLabelValues(results[taken]).Inc()
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%s_webhook.url: %w", kind, err)
	}
	return sender, nil
}

// asked logs a call that waits for an approval, and has it posted.
func (p *parts) asked(subject *writv1.ApprovalSubject) {
	p.log.Info("a call waits for an approval", "approval_id", subject.GetApprovalId(), "tool", subject.GetTool())
	if p.asks == nil {
		return
	}
	// What is shown to approvers is longer and signed: this tells them to look.
	request, who := subject.GetRequest(), subject.GetPrincipal()
	body, err := webhookBody("writ.approval.requested", subject.GetTime().AsTime(), map[string]any{
		"approval_id": subject.GetApprovalId(), "tool": subject.GetTool(), "arguments": json.RawMessage(subject.GetArguments()),
		"user": who.GetUser(), "workload": who.GetWorkload(), "tenant": who.GetTenant(),
		"approvers": request.GetRoles(), "quorum": request.GetQuorum(), "asked_by": request.GetAskedBy(),
		"risk": strings.ToLower(strings.TrimPrefix(request.GetRisk().String(), "RISK_")), "expire_time": request.GetExpireTime().AsTime().Format(time.RFC3339),
	})
	if err == nil {
		err = p.asks.Send("approval_"+subject.GetApprovalId(), body)
	}
	if err != nil {
		p.log.Error("a call that waits for an approval was not posted", "approval_id", subject.GetApprovalId(), "error", err)
	}
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
	body, err = webhookBody("writ.alert."+alertKind(record), record.GetTime().AsTime(), json.RawMessage(data))
	return "alert_" + hex.EncodeToString(sum[:16]), body, err
}

// webhookBody returns a message as the Standard Webhooks specification has them: type,
// timestamp and data. Marshal compacts what is JSON already.
func webhookBody(kind string, at time.Time, data any) ([]byte, error) {
	body, err := json.Marshal(struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      any    `json:"data"`
	}{kind, at.Format(time.RFC3339Nano), data})
	if err != nil {
		return nil, fmt.Errorf("make the message of a webhook: %w", err)
	}
	return body, nil
}
