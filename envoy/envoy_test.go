// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/writ-dev/writ/internal/envoytest"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	authz = writv1.Enforcement_ENFORCEMENT_EXT_AUTHZ
	proc  = writv1.Enforcement_ENFORCEMENT_EXT_PROC
	both  = writv1.Enforcement_ENFORCEMENT_BOTH
)

var enforcements = []writv1.Enforcement{authz, proc, both}

// each runs a test against a stack of its own for every way of enforcing.
func each(t *testing.T, test func(t *testing.T, stack *envoytest.Stack, enforcement writv1.Enforcement)) {
	t.Helper()
	for _, enforcement := range enforcements {
		t.Run(strings.ToLower(strings.TrimPrefix(enforcement.String(), "ENFORCEMENT_")), func(t *testing.T) {
			t.Parallel()
			test(t, envoytest.Start(t, envoytest.Options{Enforcement: enforcement}), enforcement)
		})
	}
}

// problem is what a denial over HTTP says.
type problem struct {
	Type, Title, Reason, Field string
	Status                     int
	Detail                     string
	DecisionID                 string `json:"decision_id"`
	ApprovalID                 string `json:"approval_id"`
	EarlierID                  string `json:"earlier_decision_id"`
	Checks                     []string
}

func problemOf(t *testing.T, answer *envoytest.Answer) problem {
	t.Helper()
	var read problem
	if got := answer.Header.Get("content-type"); got != "application/problem+json" {
		t.Errorf("status %d, content type %q, body %q", answer.Status, got, answer.Body)
	}
	if err := json.Unmarshal([]byte(answer.Body), &read); err != nil {
		t.Fatalf("the denial %q is not JSON: %v", answer.Body, err)
	}
	return read
}

func TestAnAllowedCallGoesOnAndIsRecorded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, enforcement writv1.Enforcement) {
		request := stack.Refund(4200, "p-1")
		request.Header.Set("x-writ-decision-id", "forged")
		request.Header.Set("x-writ-decision-token", "forged")
		request.Header.Set("x-writ-envelope", `{"request_id":"r-1","intent":"refund_request"}`)
		answer := stack.Do(request)
		if answer.Status != http.StatusOK {
			t.Fatalf("status %d: %s\nEnvoy: %s", answer.Status, answer.Body, stack.Proxy.Log())
		}
		all := stack.Decisions(1)
		if len(all) != 1 {
			t.Errorf("%d decisions for one call", len(all))
		}
		made := all[0]
		seen := stack.Payments.Seen()[0]
		wantBody, wantAnswer := `{"payment":"p-1","amount":4200,"note":"n"}`, `{"refund":"r-1","amount":4200,"card":"[redacted]"}`
		if enforcement == authz {
			wantBody, wantAnswer = `{ "note": "n", "amount": 4200, "payment": "p-1" }`, `{ "amount": 4200, "card": "4111111111111111", "refund": "r-1" }`
		}
		if seen.Body != wantBody || seen.Path != "/v1/tenants/acme/refunds" {
			t.Errorf("the upstream got %s %s", seen.Path, seen.Body)
		}
		if answer.Body != wantAnswer {
			t.Errorf("the caller got %s, want %s", answer.Body, wantAnswer)
		}
		if got := seen.Header.Get("x-writ-decision-id"); got != made.ID {
			t.Errorf("the upstream got decision %q, want %q", got, made.ID)
		}
		for _, name := range []string{"x-writ-decision-token", "x-writ-envelope", "accept-encoding"} {
			if got := seen.Header.Get(name); got != "" {
				t.Errorf("the upstream got the header %s: %q", name, got)
			}
		}
		if made.Record.GetEnvelope().GetIntent() != "refund_request" || len(made.Outcomes) != 1 ||
			made.Outcomes[0].GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED || made.Outcomes[0].GetHttpStatus() != 200 {
			t.Errorf("recorded %v", made)
		}
	})
}

func TestACallWithoutABodyGoesOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		answer := stack.Do(stack.Request("payments", http.MethodGet, "/v1/tenants/acme/payments/p-7?expand=true", ""))
		if answer.Status != http.StatusOK || answer.Body != `{"payment":"p-7","amount":4200}` {
			t.Fatalf("status %d: %s", answer.Status, answer.Body)
		}
		if got := stack.Payments.Seen()[0].Path; got != "/v1/tenants/acme/payments/p-7?expand=true" {
			t.Errorf("the upstream got %s", got)
		}
		stack.Decisions(1)
	})
}

func TestWhatIsNotAllowedReachesNothing(t *testing.T) {
	t.Parallel()
	refund := "/v1/tenants/acme/refunds"
	post := func(stack *envoytest.Stack, target, body string, headers ...string) *http.Request {
		request := stack.Request("payments", http.MethodPost, target, body)
		for i := 0; i < len(headers); i += 2 {
			request.Header.Add(headers[i], headers[i+1])
		}
		return request
	}
	good := `{"payment":"p-1","amount":4200}`
	sized := func(size int) string {
		empty := `{"payment":"p-1","amount":20000,"note":""}`
		return strings.Replace(empty, `""`, `"`+strings.Repeat("x", size-len(empty))+`"`, 1)
	}
	cases := []struct {
		name   string
		make   func(stack *envoytest.Stack) *http.Request
		status int
		reason string
	}{
		{"too much", func(s *envoytest.Stack) *http.Request { return s.Refund(10001, "p-1") }, 403, "CONDITION_CHECK_FAILED"},
		{"an approval is needed", func(s *envoytest.Stack) *http.Request { return s.Refund(5001, "p-1") }, 403, "APPROVAL_REQUIRED"},
		{"another tenant", func(s *envoytest.Stack) *http.Request { return post(s, "/v1/tenants/evil/refunds", good) }, 403, "GRANT_TENANT_ISOLATION"},
		{"a rule is broken", func(s *envoytest.Stack) *http.Request { return s.Refund(-1, "p-1") }, 422, "SCHEMA_RULE_VIOLATED"},
		{"an unknown field", func(s *envoytest.Stack) *http.Request {
			return post(s, refund, `{"payment":"p-1","amount":1,"admin":true}`)
		}, 422, "SCHEMA_UNKNOWN_FIELD"},
		{"a field in path and body", func(s *envoytest.Stack) *http.Request {
			return post(s, refund, `{"tenant":"acme","payment":"p-1","amount":1}`)
		}, 422, "SCHEMA_FIELD_TWICE"},
		{"a duplicate key", func(s *envoytest.Stack) *http.Request {
			return post(s, refund, `{"payment":"p-1","amount":1,"amount":9}`)
		}, 400, "DECODE_DUPLICATE_KEY"},
		{"a truncated body", func(s *envoytest.Stack) *http.Request { return post(s, refund, good[:9]) }, 400, "DECODE_MALFORMED"},
		{"invalid UTF-8", func(s *envoytest.Stack) *http.Request {
			return post(s, refund, "{\"payment\":\"p-1\",\"amount\":1,\"note\":\"\xff\"}")
		}, 400, "DECODE_INVALID_UTF8"},
		{"a compressed body", func(s *envoytest.Stack) *http.Request { return post(s, refund, good, "content-encoding", "gzip") }, 415, "DECODE_COMPRESSED"},
		{"two content types", func(s *envoytest.Stack) *http.Request { return post(s, refund, good, "content-type", "text/plain") }, 415, "DECODE_CONTENT_TYPE"},
		{"an override of the method", func(s *envoytest.Stack) *http.Request { return post(s, refund, good, "x-http-method-override", "GET") }, 400, "DECODE_HEADER_CONFLICT"},
		{"an unknown path", func(s *envoytest.Stack) *http.Request { return post(s, "/v1/admin", good) }, 404, "DECODE_METHOD_UNKNOWN"},
		{"an unknown method", func(s *envoytest.Stack) *http.Request { return s.Request("payments", http.MethodDelete, refund, "") }, 404, "DECODE_METHOD_UNKNOWN"},
		{"a repeated query key", func(s *envoytest.Stack) *http.Request {
			return s.Request("payments", http.MethodGet, "/v1/tenants/acme/payments/p-1?expand=true&expand=false", "")
		}, 400, "DECODE_PATH_AMBIGUOUS"},
		{"a body that a method has not", func(s *envoytest.Stack) *http.Request {
			return s.Request("payments", http.MethodGet, "/v1/tenants/acme/payments/p-1", good)
		}, 400, "DECODE_PROTOCOL"},
		{"a false claim", func(s *envoytest.Stack) *http.Request {
			return post(s, refund, good, "x-writ-envelope", `{"user_role":"admin"}`)
		}, 403, "CONDITION_CLAIM_MISMATCH"},
		{"a broken envelope", func(s *envoytest.Stack) *http.Request { return post(s, refund, good, "x-writ-envelope", `{"role":1}`) }, 400, "DECODE_ENVELOPE_INVALID"},
		{"a body one byte under the limit", func(s *envoytest.Stack) *http.Request { return post(s, refund, sized(envoytest.BodyBytes-1)) }, 403, "CONDITION_CHECK_FAILED"},
		{"a body at the limit", func(s *envoytest.Stack) *http.Request { return post(s, refund, sized(envoytest.BodyBytes)) }, 403, "CONDITION_CHECK_FAILED"},
		{"a body one byte over the limit", func(s *envoytest.Stack) *http.Request { return post(s, refund, sized(envoytest.BodyBytes+1)) }, 413, "DECODE_TOO_LARGE"},
		{"nobody", func(s *envoytest.Stack) *http.Request {
			request := s.Refund(1, "p-1")
			request.Header.Del("authorization")
			return request
		}, 401, "PRINCIPAL_UNAUTHENTICATED"},
		{"a forged token", func(s *envoytest.Stack) *http.Request {
			request := s.Refund(1, "p-1")
			request.Header.Set("authorization", request.Header.Get("authorization")+"x")
			return request
		}, 401, "PRINCIPAL_TOKEN_INVALID"},
		{"an expired token", func(s *envoytest.Stack) *http.Request {
			request := s.Refund(1, "p-1")
			request.Header.Set("authorization", "Bearer "+s.Issuer.TokenUntil(time.Now().Add(-time.Hour), "ann", "acme", "agent"))
			return request
		}, 401, "PRINCIPAL_TOKEN_INVALID"},
		{"a forged role", func(s *envoytest.Stack) *http.Request {
			request := s.Refund(1, "p-1")
			request.Header.Set("authorization", "Bearer "+s.Issuer.Token("bob", "acme"))
			request.Header.Set("x-role", "agent")
			return request
		}, 403, "GRANT_MISSING"},
	}
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		for _, c := range cases {
			answer := stack.Do(c.make(stack))
			got := problemOf(t, answer)
			if answer.Status != c.status || got.Reason != c.reason {
				t.Errorf("%s: status %d, %s; want %d, %s\n%s", c.name, answer.Status, got.Reason, c.status, c.reason, answer.Body)
			}
		}
		made := stack.Decisions(len(cases))
		if len(made) != len(cases) {
			t.Errorf("%d decisions for %d calls", len(made), len(cases))
		}
		for i, decision := range made {
			if got := "REASON_" + cases[i].reason; decision.Record.GetDecision().GetReason().String() != got {
				t.Errorf("%s: recorded %s", cases[i].name, decision.Record.GetDecision().GetReason())
			}
		}
		if seen := stack.Payments.Seen(); len(seen) != 0 {
			t.Errorf("the upstream got %v", seen)
		}
	})
}

func TestAKeyLetsACallThroughOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		keyed := func(amount int64) *http.Request {
			request := stack.Refund(amount, "p-1")
			request.Header.Set("idempotency-key", "k-1")
			return request
		}
		if answer := stack.Do(keyed(1)); answer.Status != http.StatusOK {
			t.Fatalf("status %d: %s", answer.Status, answer.Body)
		}
		again := problemOf(t, stack.Do(keyed(1)))
		other := problemOf(t, stack.Do(keyed(2)))
		first := stack.Decisions(3)[0].ID
		if again.Reason != "ADMISSION_ALREADY_RELEASED" || again.EarlierID != first {
			t.Errorf("the repeat: %+v, want the earlier id %s", again, first)
		}
		if other.Reason != "ADMISSION_KEY_REUSED" {
			t.Errorf("another call under the key: %+v", other)
		}
		if seen := stack.Payments.Seen(); len(seen) != 1 {
			t.Errorf("the upstream got %d requests", len(seen))
		}
	})
}

func TestThereIsNoRouteToAnythingElse(t *testing.T) {
	t.Parallel()
	stack := envoytest.Start(t, envoytest.Options{Enforcement: authz})
	if answer := stack.Do(stack.Request("evil", http.MethodGet, "/", "")); answer.Status != http.StatusNotFound {
		t.Errorf("status %d", answer.Status)
	}
}

func TestWithoutTheAgentEverythingIsDenied(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		stack.Face.GRPC().Stop()
		if answer := stack.Do(stack.Refund(1, "p-1")); answer.Status != http.StatusServiceUnavailable {
			t.Errorf("status %d: %s", answer.Status, answer.Body)
		}
		if seen := stack.Payments.Seen(); len(seen) != 0 {
			t.Errorf("the upstream got %v", seen)
		}
	})
}

func TestAWorkloadIsKnownByItsCertificate(t *testing.T) {
	t.Parallel()
	for _, enforcement := range enforcements {
		t.Run(enforcement.String(), func(t *testing.T) {
			t.Parallel()
			stack := envoytest.Start(t, envoytest.Options{Enforcement: enforcement, Callers: envoytest.CallersWithCertificates})
			if answer := stack.Do(stack.Refund(4200, "p-1")); answer.Status != http.StatusOK {
				t.Errorf("status %d: %s\nEnvoy: %s", answer.Status, answer.Body, stack.Proxy.Log())
			}
			if got := stack.Decisions(1)[0].Record.GetPrincipal().GetWorkload(); got != stack.Workload {
				t.Errorf("the record names %q", got)
			}
		})
	}
}

func TestAnAnswerThatIsTooLargeIsNotSentBack(t *testing.T) {
	t.Parallel()
	stack := envoytest.Start(t, envoytest.Options{Enforcement: proc})
	for i, size := range []int{envoytest.ResponseBytes + 1, 4 * envoytest.ResponseBytes} {
		stack.Payments.Respond(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-type", "application/json")
			if _, err := w.Write([]byte(`{"refund":"` + strings.Repeat("x", size-13) + `"}`)); err != nil {
				return
			}
		})
		answer := stack.Do(stack.Refund(4200, "p-1"))
		if answer.Status < 500 || len(answer.Body) > 1000 {
			t.Errorf("%d bytes: status %d, %d bytes", size, answer.Status, len(answer.Body))
		}
		outcome := stack.Decisions(i + 1)[i].Outcomes[0]
		if outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
			t.Errorf("%d bytes: recorded %v", size, outcome)
		}
	}
}

func TestAKeySentAThousandTimesAtOnceLetsOneCallThrough(t *testing.T) {
	t.Parallel()
	const calls, callers = 1000, 32
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		var group errgroup.Group
		group.SetLimit(callers)
		var allowed, repeated atomic.Int32
		for range calls {
			request := stack.Refund(1, "p-1")
			request.Header.Set("idempotency-key", "k-1")
			group.Go(func() error {
				answer := stack.Do(request)
				switch {
				case answer.Status == http.StatusOK:
					allowed.Add(1)
				case strings.Contains(answer.Body, "ADMISSION_ALREADY_RELEASED"):
					repeated.Add(1)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if allowed.Load() != 1 || repeated.Load() != calls-1 || len(stack.Payments.Seen()) != 1 {
			t.Errorf("%d were allowed, %d refused as repeats, and %d reached the upstream", allowed.Load(), repeated.Load(), len(stack.Payments.Seen()))
		}
	})
}

func TestABodyFarOverTheLimitIsRefusedWithARecord(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		const size = 8 * envoytest.BodyBytes // far over what Envoy buffers
		body := `{"payment":"p-1","amount":1,"note":"` + strings.Repeat("x", size) + `"}`
		// A body whose length is told, and one that comes in chunks.
		for i, length := range []int64{int64(len(body)), -1} {
			for j, target := range []struct {
				upstream, path string
				want           func(answer *envoytest.Answer) bool
			}{
				{"payments", "/v1/tenants/acme/refunds", func(answer *envoytest.Answer) bool {
					return answer.Status == http.StatusRequestEntityTooLarge && problemOf(t, answer).Reason == "DECODE_TOO_LARGE"
				}},
				{"files", "/mcp", func(answer *envoytest.Answer) bool {
					return strings.HasPrefix(answer.Body, `{"jsonrpc":"2.0","id":null,"error":`) && strings.Contains(answer.Body, "DECODE_TOO_LARGE")
				}},
			} {
				request := stack.Request(target.upstream, http.MethodPost, target.path, body)
				request.ContentLength = length
				if answer := stack.Do(request); !target.want(answer) {
					t.Errorf("%s, length %d: status %d: %s", target.upstream, length, answer.Status, answer.Body)
				}
				made := stack.Decisions(2*i + j + 1)
				last := made[len(made)-1].Record
				if len(made) != 2*i+j+1 || last.GetDecision().GetReason() != writv1.Reason_REASON_DECODE_TOO_LARGE || last.GetPrincipal().GetUser() != "ann" {
					t.Errorf("%s, length %d: recorded %v", target.upstream, length, last)
				}
			}
		}
		if seen := stack.Payments.Seen(); len(seen) != 0 {
			t.Errorf("the upstream got %d requests", len(seen))
		}
	})
}
