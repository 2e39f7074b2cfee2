// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// documentedMetric is a row of the tables of metrics in docs/telemetry.md: name, type,
// labels.
var documentedMetric = regexp.MustCompile("(?m)^\\| `(writ_[a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\|")

// metric is a metric as the page and a scrape have it.
type metric struct {
	Type   string
	Labels []string
}

// documentedMetrics returns what the page documents.
func documentedMetrics(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]metric)
	for _, row := range documentedMetric.FindAllStringSubmatch(string(text), -1) {
		m := metric{Type: row[2]}
		for label := range strings.SplitSeq(row[3], ",") {
			if label = strings.Trim(label, " `"); label != "-" {
				m.Labels = append(m.Labels, label)
			}
		}
		slices.Sort(m.Labels)
		if _, twice := out[row[1]]; twice {
			t.Errorf("the page has %s twice", row[1])
		}
		out[row[1]] = m
	}
	return out
}

// mirrorFiles are a bundle whose one tool can be asked for more than its worst case,
// and whose every call is put up for review.
var mirrorFiles = map[string]string{
	"bundle.yaml":    "name: mirrors\n",
	"catalogue.yaml": "upstreams: []\n",
	"protos/mirror.proto": `syntax = "proto3";
package mirror.v1;

import "writ/v1/options.proto";

service Mirror {
  // Show what is asked.
  rpc Show(ShowRequest) returns (ShowResponse) {
    option (writ.v1.tool) = {name: "mirror.show" risk: RISK_LOW effect: TOOL_EFFECT_READ command: {path: "mirror"}};
  }
}

message ShowRequest {
  optional int64 most = 1 [(writ.v1.field).budget = {dimension: DIMENSION_OUTPUT_TOKENS}];
  int64 used = 2;
}
message ShowResponse {
  int64 most = 1;
  int64 used = 2 [(writ.v1.field).budget = {dimension: DIMENSION_OUTPUT_TOKENS}];
}
`,
	"grants/all.yaml": `grants:
  - {name: all, effect: GRANT_EFFECT_ALLOW, principals: {roles: [viewer]}, tools: ["*"]}
`,
	"budgets/all.yaml": `budgets:
  - {name: words, tools: ["*"], scopes: [BUDGET_SCOPE_TENANT], dimension: DIMENSION_OUTPUT_TOKENS, limit: 100, window: 86400s, alert_percents: [5]}
`,
	"risk/all.yaml": `bands:
  - {name: seen, tools: ["*"], at_least: 0, review_per_mille: 1000}
`,
}

// serveUntilTheEnd runs a command of writ until the test is over.
func serveUntilTheEnd(t *testing.T, args ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		root := newRoot()
		root.SetArgs(args)
		root.SetErr(&strings.Builder{})
		ended <- root.ExecuteContext(ctx)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("writ %s: %v", args[0], err)
		}
	})
}

// comesTrue waits until something that another goroutine does is so.
func comesTrue(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline:
			t.Fatalf("not after 30 s: %s", what)
		case <-tick.C:
		}
	}
}

// scrape returns the metrics of an admin address.
func scrape(t *testing.T, address string) map[string]metric {
	t.Helper()
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text := expfmt.NewTextParser(model.UTF8Validation)
	families, err := text.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]metric)
	for name, family := range families {
		m := metric{Type: strings.ToLower(family.GetType().String())}
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		for _, label := range family.GetMetric()[0].GetLabel() {
			m.Labels = append(m.Labels, label.GetName())
		}
		slices.Sort(m.Labels)
		out[name] = m
	}
	return out
}

func answers(address string) func() bool {
	return func() bool {
		response, err := http.Get("http://" + address + "/livez")
		if err != nil {
			return false
		}
		_ = response.Body.Close() // nothing of it is read
		return response.StatusCode == http.StatusOK
	}
}

// mirrors runs a collector and an agent that show every metric, and returns their
// admin addresses.
func mirrors(t *testing.T) (agents, collectors string) {
	t.Helper()
	// A socket's path is short.
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	agents, collectors = loopback(t), loopback(t)
	files := map[string]string{
		"agents":         "",
		"secret":         "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
		"collector.yaml": fmt.Sprintf("data_dir: store\nlistener: unix:%s/c\nagents_file: agents\nadmin: %s\n", dir, collectors),
		"agent.yaml": fmt.Sprintf(`data_dir: data
bundle_dir: bundle
listeners: {envoy: "unix:%[1]s/e", planner: "unix:%[1]s/p", admin: %[2]q}
identity: {workloads: [{spiffe_id: "spiffe://example.org/planner", uid: %[3]d, roles: [viewer]}]}
collector: {address: "unix:%[1]s/c", public_key_file: store/collector.vkey}
alert_webhook: {url: "http://127.0.0.1:1/", secret_file: %[1]s/secret}
approval_webhook: {url: "http://127.0.0.1:1/", secret_file: %[1]s/secret}
telemetry: {otlp: {endpoint: "127.0.0.1:1"}}
originals_keys_file: %[1]s/originals
`, dir, agents, os.Getuid()),
	}
	for name, text := range mirrorFiles {
		files["bundle/"+name] = text
	}
	files["originals"] = standardOutput(t, "keys", "make", "--vault", filepath.Join(dir, "vault"), "--kek", "file:"+filepath.Join(dir, "kek.key"), "--tenant", "acme", "--days", "3")
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "bundle", "mirror"), "./testdata/mirror").CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v\n%s", err, out)
	}
	serveUntilTheEnd(t, "collector", "--config", filepath.Join(dir, "collector.yaml"))
	comesTrue(t, "the collector answers", answers(collectors))
	serveUntilTheEnd(t, "agent", "--config", filepath.Join(dir, "agent.yaml"))
	comesTrue(t, "the agent answers", answers(agents))
	key, err := os.ReadFile(filepath.Join(dir, "data", "ledger", "log.vkey"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "agents"), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	show(t, "unix:"+dir+"/p")
	return agents, collectors
}

// show asks the tool for more than its worst case.
func show(t *testing.T, socket string) {
	t.Helper()
	conn, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	done, err := writv1.NewToolServiceClient(conn).Execute(t.Context(), &writv1.ExecuteRequest{Envelope: &writv1.Envelope{
		ToolCall: &writv1.ToolCall{Name: "mirror.show", Args: &writv1.Json{Text: []byte(`{"most":5,"used":50}`)}},
	}})
	if err != nil || done.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Fatalf("execute: %v, %v", done, err)
	}
}

func loopback(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestEveryMetricIsDocumentedAndEveryDocumentedOneIsThere(t *testing.T) {
	t.Parallel()
	agents, collectors := mirrors(t)
	want := documentedMetrics(t)
	var got map[string]metric
	comesTrue(t, "all documented metrics are shown", func() bool {
		got = scrape(t, agents)
		for name, m := range scrape(t, collectors) {
			got[name] = m
		}
		return len(got) >= len(want) || t.Failed()
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-docs/telemetry.md +shown):\n%s", diff)
	}
}

// expressions returns the PromQL of the dashboard and of the alert rules, by where it
// stands.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
	}
	text, err := os.ReadFile("../../deploy/grafana/writ.json")
	if err == nil {
		err = json.Unmarshal(text, &dashboard)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for i, target := range panel.Targets {
			out[fmt.Sprintf("panel %s %d", panel.Title, i)] = target.Expr
		}
	}
	for _, variable := range dashboard.Templating.List {
		if series, ok := strings.CutPrefix(variable.Query, "label_values("); ok {
			series, _, _ = strings.Cut(series, ",")
			out["variable "+variable.Name] = series
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if text, err = os.ReadFile("../../deploy/prometheus/writ-alerts.yaml"); err == nil {
		err = yaml.Unmarshal(text, &rules)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			if _, err := model.ParseDuration(rule.For); rule.For != "" && err != nil || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["action"] == "" {
				t.Errorf("alert %s has no severity, summary or action, or \"for\" is no duration: %v", rule.Alert, err)
			}
			out["alert "+rule.Alert] = rule.Expr
		}
	}
	return out
}

// ofScrapes are labels that Prometheus adds, and that of a histogram's buckets.
var ofScrapes = []string{model.MetricNameLabel, model.InstanceLabel, model.BucketLabel}

// labelsOf returns the labels that an expression names.
func labelsOf(expression parser.Expr) []string {
	var out []string
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			out = append(out, n.Grouping...)
		case *parser.VectorSelector:
			for _, matcher := range n.LabelMatchers {
				out = append(out, matcher.Name)
			}
		}
		return nil
	})
	return out
}

func TestTheDashboardAndTheAlertsAskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	known := documentedMetrics(t)
	// Grafana puts these in before it asks.
	filled := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	asked, alerts := make(map[string]bool), 0
	promql := parser.NewParser(parser.Options{})
	for where, text := range expressions(t) {
		if strings.HasPrefix(where, "alert ") {
			alerts++
		}
		expression, err := promql.ParseExpr(filled.Replace(text))
		if err != nil {
			t.Errorf("%s: %v\n%s", where, err, text)
			continue
		}
		for _, series := range parser.ExtractSelectors(expression) {
			for _, matcher := range series {
				if matcher.Name == model.MetricNameLabel {
					name := strings.TrimSuffix(matcher.Value, "_bucket")
					asked[name] = true
					if m, ok := known[name]; !ok || (m.Type == "histogram") != (name != matcher.Value) {
						t.Errorf("%s asks for %s, which docs/telemetry.md does not have", where, matcher.Value)
					}
				}
			}
		}
		for _, label := range labelsOf(expression) {
			if !slices.Contains(ofScrapes, label) && !slices.ContainsFunc(slices.Collect(maps.Values(known)), func(m metric) bool { return slices.Contains(m.Labels, label) }) {
				t.Errorf("%s asks for the label %s, which no metric has", where, label)
			}
		}
	}
	if alerts < 10 {
		t.Errorf("%d alert rules were found", alerts)
	}
	for name := range known {
		if !asked[name] {
			t.Errorf("neither the dashboard nor an alert asks for %s", name)
		}
	}
}
