// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/writ-dev/writ/internal/testenv"
	"github.com/writ-dev/writ/planner/webhook"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

const secretIBAN = "DE02120300000000202051"

// large is a payout that a treasurer must approve, with a sensitive argument.
const large = `{"payee":"Nordwerk","cents":420000,"iban":"` + secretIBAN + `"}`

func TestSensitiveArgumentsAreSealedToWhoMayApprove(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	id := o.pay(large).GetApprovalId()
	show := o.as("bob", "show", id)
	if !strings.Contains(show, "sealed to you") || !strings.Contains(show, `iban: "`+secretIBAN+`"`) {
		t.Errorf("the approver does not see what would run:\n%s", show)
	}
	var one struct {
		Arguments map[string]any `json:"arguments"`
		Sensitive map[string]any `json:"sensitive_arguments"`
	}
	if err := json.Unmarshal([]byte(o.as("bob", "show", "-o", "json", id)), &one); err != nil || one.Sensitive["iban"] != secretIBAN || one.Arguments["iban"] != nil {
		t.Errorf("JSON: %+v, %v", one, err)
	}
	// A treasurer whose key the agent does not know as one to seal to sees it redacted.
	if show := o.as("eva", "show", id); strings.Contains(show, secretIBAN) || !strings.Contains(show, "sealed to other approvers") {
		t.Errorf("somebody to whom nothing is sealed sees:\n%s", show)
	}
	mine, err := writv1.NewApprovalServiceClient(o.conn).GetApproval(t.Context(), &writv1.GetApprovalRequest{ApprovalId: id})
	if err != nil || mine.GetApproval().GetSubject().GetRequest().GetSealed() != nil {
		t.Errorf("who asks gets %v, %v", mine.GetApproval().GetSubject().GetRequest(), err)
	}
	if voted := o.as("bob", "approve", "--yes", id); !strings.Contains(voted, "approved") {
		t.Errorf("approve:\n%s", voted)
	}
	if again := o.pay(large); again.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW {
		t.Errorf("the retry: %v", again.GetDecision())
	}
}

func TestWhatIsSealedOpensForItsApprovalAlone(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	id, other := o.pay(large).GetApprovalId(), o.pay(strings.Replace(large, "420000", "430000", 1)).GetApprovalId()
	text, err := os.ReadFile(filepath.Join(o.dir, "bob"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := approvals.ParseKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	subject := func(id string) *writv1.ApprovalSubject {
		desk := &approvalDesk{agent: o.socket, key: filepath.Join(o.dir, "bob")}
		a, err := desk.open()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close() //nolint:errcheck // nothing is lost with it
		ctx, err := a.as(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		approval, err := a.get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return approval.GetSubject()
	}
	for name, change := range map[string]func(*writv1.ApprovalSubject){
		"moved to another approval":  func(s *writv1.ApprovalSubject) { s.Request.Sealed = subject(other).GetRequest().GetSealed() },
		"another ciphertext":         func(s *writv1.ApprovalSubject) { s.Request.Sealed.Ciphertext[0] ^= 1 },
		"another key":                func(s *writv1.ApprovalSubject) { s.Request.Sealed.Keys[0].Sealed[40] ^= 1 },
		"a digest of something else": func(s *writv1.ApprovalSubject) { s.Request.Sealed.Digest[0] ^= 1 },
	} {
		s := subject(id)
		if _, err := key.Open(s); err != nil {
			t.Fatalf("%s: it does not open unchanged: %v", name, err)
		}
		change(s)
		if opened, err := key.Open(s); !errors.Is(err, approvals.ErrSealBroken) {
			t.Errorf("%s: it opens: %v, %v", name, opened, err)
		}
	}
}

func TestAPendingApprovalIsPostedSignedUntilItIsTaken(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	type posted struct {
		id   string
		body []byte
		err  error
	}
	came := make(chan posted, 8)
	var refused atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(key, r.Header, body, time.Now())
		}
		if !refused.Swap(true) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		came <- posted{r.Header.Get("webhook-id"), body, err}
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := openPage(t, "approvals.md", "spiffe://example.org/planner", fmt.Sprintf("approval_webhook: {url: %q, secret_file: %q}\n", server.URL, file))
	id := o.pay(large).GetApprovalId()
	first, second := <-came, <-came
	if first.err != nil || second.err != nil {
		t.Errorf("signatures: %v, %v", first.err, second.err)
	}
	if first.id != "approval_"+id || second.id != first.id || !bytes.Equal(first.body, second.body) {
		t.Errorf("the message that was not taken is %s %s, the next try %s %s", first.id, first.body, second.id, second.body)
	}
	var message struct {
		Type string
		Data struct {
			ID        string         `json:"approval_id"`
			Tool      string         `json:"tool"`
			Arguments map[string]any `json:"arguments"`
			Roles     []string       `json:"approvers"`
		}
	}
	if err := json.Unmarshal(first.body, &message); err != nil {
		t.Fatal(err)
	}
	if message.Type != "writ.approval.requested" || message.Data.ID != id || message.Data.Tool != "payouts.pay" ||
		message.Data.Arguments["payee"] != "Nordwerk" || len(message.Data.Roles) != 1 {
		t.Errorf("the message is %s", first.body)
	}
	if bytes.Contains(first.body, []byte(secretIBAN)) {
		t.Errorf("the message has a sensitive argument: %s", first.body)
	}
}

func TestApproversWorkOverMutualTLS(t *testing.T) {
	t.Parallel()
	const planner = "spiffe://example.org/planner"
	ours, theirs := testenv.NewAuthority(t), testenv.NewAuthority(t)
	id, err := url.Parse(planner)
	if err != nil {
		t.Fatal(err)
	}
	server := ours.Issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	client := ours.Issue(t, &x509.Certificate{URIs: []*url.URL{id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	stranger := theirs.Issue(t, &x509.Certificate{URIs: []*url.URL{id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	address := testenv.Address(t)
	config, err := clientTLS(&writv1.ClientTls{ServerCaFile: ours.File, CertificateFile: client.Certificate, KeyFile: client.Key})
	if err != nil {
		t.Fatal(err)
	}
	o := openAt(t, "approvals.md", place{
		address: address, credentials: credentials.NewTLS(config),
		listener: fmt.Sprintf("{envoy: \"unix:%%[1]s/e\", planner: %q, planner_tls: {certificate_file: %q, key_file: %q, client_ca_file: %q}}", address, server.Certificate, server.Key, ours.File),
	})
	asked := o.pay(large).GetApprovalId()
	over := func(authority string, pair testenv.PairFiles) []string {
		return []string{"--tls-ca", authority, "--tls-cert", pair.Certificate, "--tls-key", pair.Key}
	}
	if list := o.as("bob", "list", over(ours.File, client)...); !strings.Contains(list, asked) {
		t.Errorf("list:\n%s", list)
	}
	if voted := o.as("bob", "approve", append(over(ours.File, client), "--yes", asked)...); !strings.Contains(voted, "approved") {
		t.Errorf("approve:\n%s", voted)
	}
	for name, args := range map[string][]string{
		"a certificate of another authority": over(ours.File, stranger),
		"an agent of another authority":      over(theirs.File, client),
		"plain text":                         nil,
	} {
		// Which of the two ends hangs up first is chance, and so is what is told.
		if got := o.fails("bob", "list", args...); strings.Contains(got, asked) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
