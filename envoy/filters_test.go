// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/internal/envoytest"
	"github.com/writ-dev/writ/ledger/token"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// before puts a filter in front of ext_proc.
func before(filter string) func(string) string {
	const proc = "                  - name: envoy.filters.http.ext_proc\n"
	return func(config string) string { return strings.Replace(config, proc, filter+proc, 1) }
}

// swap is a filter that changes the body on its way from one filter to the next.
const swap = `                  - name: envoy.filters.http.lua
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
                      default_source_code:
                        inline_string: |
                          function envoy_on_request(handle)
                            local body = '{"payment":"p-1","amount":4900}'
                            handle:body():setBytes(body)
                            handle:headers():replace("content-length", tostring(#body))
                          end
`

func TestACallThatChangesBetweenTheFiltersIsRefused(t *testing.T) {
	t.Parallel()
	stack := envoytest.Start(t, envoytest.Options{Enforcement: both, Change: before(swap)})
	answer := stack.Do(stack.Refund(4200, "p-1"))
	if got := problemOf(t, answer); got.Reason != "ADMISSION_BODY_CHANGED" {
		t.Errorf("status %d: %s", answer.Status, answer.Body)
	}
	if seen := stack.Payments.Seen(); len(seen) != 0 {
		t.Errorf("the upstream got %v", seen)
	}
	made := stack.Decisions(2)
	if got := made[0].Outcomes[0].GetState(); got != writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		t.Errorf("the first decision ended as %s", got)
	}
}

func TestAModeThatLetsSomethingPassUnseenRefusesEverything(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, from, to string }{
		{"the request's body streams", "request_body_mode: BUFFERED", "request_body_mode: STREAMED"},
		{"the response's body is not seen", "response_body_mode: BUFFERED", "response_body_mode: NONE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			stack := envoytest.Start(t, envoytest.Options{Enforcement: proc, Change: func(config string) string {
				return strings.ReplaceAll(config, c.from, c.to)
			}})
			answer := stack.Do(stack.Refund(4200, "p-1"))
			if got := problemOf(t, answer); got.Reason != "AGENT_UNIMPLEMENTED" {
				t.Errorf("status %d: %s", answer.Status, answer.Body)
			}
			if seen := stack.Payments.Seen(); len(seen) != 0 {
				t.Errorf("the upstream got %v", seen)
			}
		})
	}
}

func TestAnAnswerThatIsNotOfItsTypeDoesNotReachTheCaller(t *testing.T) {
	t.Parallel()
	write := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-type", kind)
			w.WriteHeader(status)
			if _, err := io.WriteString(w, body); err != nil {
				return
			}
		}
	}
	cases := []struct {
		name    string
		respond http.HandlerFunc
		status  int
		reason  string
	}{
		{"an unknown field", write(200, "application/json", `{"refund":"r-1","secret":"x"}`), 502, "SCHEMA_RESPONSE_INVALID"},
		{"a broken rule", write(200, "application/json", `{"amount":1}`), 502, "SCHEMA_RESPONSE_INVALID"},
		{"a duplicate key", write(200, "application/json", `{"refund":"r-1","refund":"secret"}`), 502, "SCHEMA_RESPONSE_INVALID"},
		{"no JSON", write(200, "application/json", `secret`), 502, "SCHEMA_RESPONSE_INVALID"},
		{"another type", write(200, "text/html", `<p>secret</p>`), 502, "SCHEMA_RESPONSE_INVALID"},
		{"no body", write(200, "application/json", ``), 502, "SCHEMA_RESPONSE_INVALID"},
		{"a failing status", write(500, "text/plain", "a secret trace"), 500, "EXECUTION_UPSTREAM_STATUS"},
		{"a status that says no", write(404, "application/json", `{"secret":1}`), 404, "EXECUTION_UPSTREAM_STATUS"},
	}
	stack := envoytest.Start(t, envoytest.Options{Enforcement: proc})
	for _, c := range cases {
		stack.Payments.Respond(c.respond)
		answer := stack.Do(stack.Refund(4200, "p-1"))
		got := problemOf(t, answer)
		if answer.Status != c.status || got.Reason != c.reason || strings.Contains(answer.Body, "secret") {
			t.Errorf("%s: status %d: %s", c.name, answer.Status, answer.Body)
		}
	}
	for i, made := range stack.Decisions(len(cases)) {
		outcome := made.Outcomes[0]
		if outcome.GetState() != writv1.OutcomeState_OUTCOME_STATE_FAILED || outcome.GetReason().String() != "REASON_"+cases[i].reason {
			t.Errorf("%s: recorded %v", cases[i].name, outcome)
		}
	}
}

func TestAnUpstreamThatIsGoneIsSaidSo(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, enforcement writv1.Enforcement) {
		stack.Payments.Stop()
		answer := stack.Do(stack.Refund(4200, "p-1"))
		if answer.Status != http.StatusServiceUnavailable {
			t.Errorf("status %d: %s", answer.Status, answer.Body)
		}
		outcome := stack.Decisions(1)[0].Outcomes[0]
		if outcome.GetReason() != writv1.Reason_REASON_EXECUTION_UPSTREAM_UNAVAILABLE {
			t.Errorf("recorded %v", outcome)
		}
	})
}

func TestADecisionTokenIsForTheRequestThatIsSentOn(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"DECISION_TOKEN_KIND_JWS", "DECISION_TOKEN_KIND_RECEIPT"} {
		for _, enforcement := range enforcements {
			t.Run(kind+" "+enforcement.String(), func(t *testing.T) {
				t.Parallel()
				stack := envoytest.Start(t, envoytest.Options{Enforcement: enforcement, Token: kind})
				for _, request := range []*http.Request{
					stack.Refund(4200, "p-1"),
					stack.Request("payments", http.MethodGet, "/v1/tenants/acme/payments/p-7?expand=true", ""),
				} {
					if answer := stack.Do(request); answer.Status != http.StatusOK {
						t.Fatalf("status %d: %s", answer.Status, answer.Body)
					}
				}
				verifier := verifierFor(t, stack)
				for _, seen := range stack.Payments.Seen() {
					received := httptest.NewRequest(seen.Method, seen.Path, strings.NewReader(seen.Body))
					received.Header = seen.Header
					claims, err := verifier.Verify(received, []byte(seen.Body))
					if err != nil || claims.ID != seen.Header.Get("x-writ-decision-id") {
						t.Errorf("%s %s: %v, %v", seen.Method, seen.Path, claims, err)
					}
				}
			})
		}
	}
}

func verifierFor(t *testing.T, stack *envoytest.Stack) *token.Verifier {
	t.Helper()
	keys, err := os.ReadFile(stack.TokenKeys)
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.ReadKeySet(keys)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(stack.Ledger.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	return &token.Verifier{Audience: "payments", Issuer: stack.Ledger.Origin(), Keys: set, Ledgers: []note.Verifier{verifier}}
}
