// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/internal/testenv"
)

func TestACollectorOverTLSGivesEachReaderWhatItMayRead(t *testing.T) {
	t.Parallel()
	const named = "spiffe://example.org/"
	dir, authority, address := t.TempDir(), testenv.NewAuthority(t), testenv.Address(t)
	if err := writeLedger(t.Context(), filepath.Join(dir, "ledger"), filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	server := authority.Issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	path := filepath.Join(dir, "collector.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, `data_dir: store
listener: %q
tls: {certificate_file: %q, key_file: %q, client_ca_file: %q}
readers:
  - {spiffe_id: %[5]sauditor, tenants: ["*"]}
  - {spiffe_id: %[5]soperator, tenants: ["*"], roles: [READER_ROLE_OPERATOR]}
  - {spiffe_id: %[5]sacme, tenants: [acme]}
  - {spiffe_id: %[5]sglobex, tenants: [globex]}
`, address, server.Certificate, server.Key, authority.File, named), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := readCollectorConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- runCollector(ctx, config, slog.New(slog.DiscardHandler)) }()
	defer func() {
		stop()
		if err := <-served; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	as := func(who string, args ...string) (string, error) {
		id, err := url.Parse(named + who)
		if err != nil {
			t.Fatal(err)
		}
		own := authority.Issue(t, &x509.Certificate{URIs: []*url.URL{id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		var out bytes.Buffer
		cmd := newRoot()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		if args[0] != "agents" {
			args = append([]string{"records"}, args...)
		}
		cmd.SetArgs(append(slices.Clone(args),
			"--collector", address, "--tls-ca", authority.File, "--tls-cert", own.Certificate, "--tls-key", own.Key))
		err = cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := as("auditor", "list")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	const decided = "01000000000000000000000000000001"
	for name, c := range map[string]struct {
		who  string
		args []string
		want string // in what is printed, or in the error
		not  string
		fail bool
	}{
		"an auditor lists what is of no tenant":     {"auditor", []string{"list"}, "START", "", false},
		"a tenant's reader lists what is its own":   {"acme", []string{"list"}, "books.refund", "START", false},
		"a tenant's reader shows what is its own":   {"acme", []string{"show", decided}, "GRANTED", "", false},
		"another tenant's lists nothing":            {"globex", []string{"list"}, "", "books.refund", false},
		"another tenant's shows nothing":            {"globex", []string{"show", decided}, "nothing is recorded of decision", "refund", true},
		"another tenant's is told who says it may":  {"globex", []string{"list", "--tenant", "acme"}, "readers in the collector's configuration", "", true},
		"an auditor exports what is of no tenant":   {"auditor", []string{"export", "--out", filepath.Join(dir, "all.ndjson")}, "5 records of 1 ledgers", "", false},
		"a tenant's reader exports what is its own": {"acme", []string{"export", "--out", filepath.Join(dir, "acme.ndjson")}, "4 records of 1 ledgers", "", false},
		"another tenant's exports nothing":          {"globex", []string{"export", "--out", filepath.Join(dir, "globex.ndjson")}, "0 records of 0 ledgers", "", false},
		"an agent exports":                          {"agent", []string{"export", "--out", filepath.Join(dir, "agent.ndjson")}, "you may read no records", "", true},
		"an operator lists agents":                  {"operator", []string{"agents", "list"}, "example.org/agent/desk", "books.refund", false},
		"an operator lists no records":              {"operator", []string{"list"}, "you may read no records", "START", true},
		"an auditor lists no agents":                {"auditor", []string{"agents", "list"}, "you may not see agents", "example.org/agent/desk", true},
		"a tenant's reader filters what is its own": {"acme", []string{"list", "--filter", "tenant = globex OR check:small"}, "books.refund", "START", false},
		"another tenant's filters nothing":          {"globex", []string{"list", "--filter", "tenant = acme OR check:small"}, "", "books.refund", false},
		"an agent, whose certificate is as good":    {"agent", []string{"list"}, "you may read no records", "START", true},
		"an agent that would follow what is stored": {"agent", []string{"tail"}, "you may read no records", "START", true},
	} {
		out, err := as(c.who, c.args...)
		if err != nil {
			out += err.Error()
		}
		if (err != nil) != c.fail || !strings.Contains(out, c.want) || c.not != "" && strings.Contains(out, c.not) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	acme, err := os.ReadFile(filepath.Join(dir, "acme.ndjson"))
	if err != nil || strings.Count(string(acme), `"tenant":"acme"`) < 4 || strings.Contains(string(acme), "START") {
		t.Errorf("a tenant's export: %v\n%s", err, acme)
	}
	if _, err := os.Stat(filepath.Join(dir, "agent.ndjson")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an export that was refused left a file: %v", err)
	}
	stop()
	if err := <-served; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	served <- nil // for what is deferred
	theReadsAreThere(t, filepath.Join(dir, "store"))
}

// theReadsAreThere holds what a collector recorded of its readers against what they did,
// and has it verified; a byte of it that is changed is found.
func theReadsAreThere(t *testing.T, store string) {
	t.Helper()
	own := filepath.Join(store, "reads")
	writ := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := newRoot()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	for who, want := range map[string]string{"operator": "AgentService/ListAgents", "globex": `"tenant":"acme"`, "acme": "GetRecord"} {
		out, err := writ("records", "list", "--ledger", own, "--kind", "read", "--principal", "spiffe://example.org/"+who, "-o", "json")
		if err != nil || !strings.Contains(strings.ReplaceAll(out, `\"`, `"`), want) {
			t.Errorf("what %s read: %v\n%s\nwant %s", who, err, out, want)
		}
	}
	if out, err := writ("records", "list", "--ledger", own, "--principal", "spiffe://example.org/agent"); err != nil || strings.Contains(out, "READ") {
		t.Errorf("who reads nothing: %v\n%s", err, out)
	}
	if out, err := writ("verify", "--store", store); err != nil || !strings.Contains(out, "verified  writ.local/collector/") || strings.Contains(out, "NOT") {
		t.Fatalf("verify: %v\n%s", err, out)
	}
	segments, err := filepath.Glob(filepath.Join(own, "*.dlog"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	text, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte("example.org/operator"), []byte("example.org/somebody"), 1)
	if err := os.WriteFile(segments[0], changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := writ("verify", "--store", store); !errors.Is(err, errNo) || !strings.Contains(out, "NOT verified  writ.local/collector/") {
		t.Errorf("verify after a change: %v\n%s", err, out)
	}
}
