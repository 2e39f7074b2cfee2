// SPDX-License-Identifier: Apache-2.0

package filters_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/collector/filters"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// entry is a decision that filters are held against.
func entry() filters.Entry {
	return filters.Entry{
		Origin: "example.org/desk", Time: time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC).UnixNano(), Kind: writv1.RecordKind_RECORD_KIND_DECISION,
		DecisionID: strings.Repeat("\x01", 16), Bundle: strings.Repeat("\xab", 32), Tenant: "acme", Reason: writv1.Reason_REASON_CONDITION_CHECK_FAILED,
		Subject: filters.Subject{
			Tool: "payments.issue_refund", Verdict: int32(writv1.Verdict_VERDICT_DENY), Workload: "spiffe://example.org/desk", User: "ada",
			Session: strings.Repeat("\x02", 16), TraceID: strings.Repeat("\x03", 16), Workflow: "refund", RequestID: `r "1"`, Checks: "\nsmall\nown case\n",
		},
	}
}

func TestAFilterSelectsWhatItsComparisonsSay(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]bool{
		``:     true,
		`    `: true,
		`tool = "payments.issue_refund" AND verdict = DENY`:               true,
		`  tool = payments.issue_refund   AND   verdict=VERDICT_DENY  `:   true,
		`tool = 'payments.issue_refund'`:                                  true,
		`tool = (payments.issue_refund)`:                                  true,
		`tool = "payments"`:                                               false,
		`tool != "payments"`:                                              true,
		`NOT tool = payments`:                                             true,
		`-tool = payments`:                                                true,
		`verdict = "needs-approval" OR reason = condition_check_failed`:   true,
		`verdict = allow`:                                                 false,
		`tenant = acme AND verdict = ALLOW OR user = ada`:                 true,
		`tenant = globex AND verdict = DENY OR user = ada`:                false, // OR binds tighter
		`(tenant = globex AND verdict = DENY) OR user = ada`:              true,
		`NOT (tenant = globex OR tenant = acme)`:                          false,
		`principal = ada AND principal = "spiffe://example.org/desk"`:     true,
		`principal != bob`:                                                true,
		`principal != ada`:                                                false,
		`workload = ada`:                                                  false,
		`check:small AND check = "own case" AND check != large`:           true,
		`check:"smal"`:                                                    false,
		`session = "02020202020202020202020202020202"`:                    true,
		`trace_id = "03030303030303030303030303030303"`:                   true,
		`decision = "01010101010101010101010101010101"`:                   true,
		`bundle = "sha256:` + strings.Repeat("AB", 32) + `"`:              true,
		`bundle != "` + strings.Repeat("ac", 32) + `"`:                    true,
		`workflow = refund AND request_id = "r \"1\"" AND kind=decision`:  true,
		`kind = OUTCOME`:                                                  false,
		`origin = "example.org/desk"`:                                     true,
		`tenant = ""`:                                                     false,
		`session != ""`:                                                   true,
		`time = "2026-01-31T09:00:00Z"`:                                   true,
		`time > "2026-01-31T10:00:00+01:00"`:                              false,
		`time >= "2026-01-31T10:00:00+01:00"`:                             true,
		`time < timestamp("2026-01-31T09:00:00.000000001Z")`:              true,
		`time <= "2026-01-31T08:59:59Z"`:                                  false,
		`time != "2026-01-31T09:00:00Z"`:                                  false,
		`time > "0001-01-01T00:00:00Z" AND time < "9999-01-01T00:00:00Z"`: true,
	} {
		f, err := filters.Parse(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got := f.Match(entry(), f.Recall(entry().Subject)); got != want {
			t.Errorf("%s selects it: %v, want %v", source, got, want)
		}
	}
}

func TestWhatIsWrongWithAFilterIsSaidWithItsColumn(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		`tol = x`:                   `column 1: no such field; fields are time, kind, origin, decision, tenant, principal, workload, user, tool, verdict, reason, check, session, workflow, bundle, request_id, trace_id`,
		`  tool = x AND tol = y`:    `column 16: no such field`,
		`tool`:                      `column 1: a comparison is wanted`,
		`tool = x verdict = DENY`:   `column 10: AND or OR is wanted between two comparisons`,
		`tool > x`:                  `column 1: tool is compared with = !=, not with >`,
		`tool:x`:                    `column 1: tool is compared with = !=, not with :`,
		`check > x`:                 `column 1: check is compared with : = !=, not with >`,
		`verdict = MAYBE`:           `column 11: "MAYBE" is no verdict: one of ALLOW, DENY, NEEDS_APPROVAL`,
		`verdict = UNSPECIFIED`:     `column 11: "UNSPECIFIED" is no verdict`,
		`tenant = "ä" AND kind = x`: `column 25: "x" is no kind: one of START, DECISION,`,
		`reason = NO_SUCH`:          `column 10: "NO_SUCH" is no reason`,
		`time > yesterday`:          `column 8: "yesterday" is no time such as`,
		`time > 2026`:               `column 8: a value of time stands in quotes`,
		`request_id = 17`:           `column 14: a value of request_id stands in quotes`,
		`session = "12"`:            `column 11: "12" is no session: it has 32 hexadecimal digits`,
		`session = "` + strings.Repeat("z", 32) + `"`: `is no session`,
		`check:""`:                         `column 7: a check has a name`,
		`tool = "x`:                        `column 8: unterminated string`,
		`tool = `:                          `column 7: `,
		`(tool = x`:                        `column 10: `,
		`tool = x)`:                        `column 9: unexpected trailing token )`,
		`AND`:                              `column 1: unexpected token AND`,
		`tool = f(x)`:                      `column 8: a value of tool stands in quotes`,
		`f(x)`:                             `column 1: no function "f" is known here`,
		`NOT()`:                            `column 1: no function "NOT"`,
		`FUZZY()`:                          `column 1: no function "FUZZY"`,
		`tool.x = y`:                       `column 1: no such field`,
		"tool = \xff":                      `column 8: invalid UTF-8`,
		strings.Repeat("(", 17) + "tool=x": `column 17: parentheses nest more than 16 deep`,
		strings.Repeat("x", 2049):          `column 2049: a filter has at most 2048 characters`,
		`tool = "` + strings.Repeat("t", 129) + `"`:            `column 8: the value has more than the 128 characters of a tool`,
		strings.Repeat("tool=x OR ", 64) + "tool=x":            `column 641: a filter has at most 64 comparisons`,
		strings.Repeat("tool=x AND ", 64) + "time > timestamp": `column 705: a filter has at most 64 comparisons`,
	} {
		f, err := filters.Parse(source)
		var wrong *filters.Error
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) || f != nil {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

func TestTheWindowOfAFilterIsTheTimeThatItDemands(t *testing.T) {
	t.Parallel()
	at := func(hour int) int64 { return time.Date(2026, 1, 31, hour, 0, 0, 0, time.UTC).UnixNano() }
	for source, want := range map[string][2]int64{
		`time >= "2026-01-31T09:00:00Z" AND tool = x AND time < "2026-01-31T10:00:00Z"`: {at(9), at(10)},
		`time > "2026-01-31T09:00:00Z" AND time <= "2026-01-31T10:00:00Z"`:              {at(9), at(10) + 1},
		`time = "2026-01-31T09:00:00Z"`:                                                 {at(9), at(9) + 1},
	} {
		f, err := filters.Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		if start, end := f.Window(); start != want[0] || end != want[1] {
			t.Errorf("%s: %d to %d, want %v", source, start, end, want)
		}
	}
	for _, source := range []string{``, `tool = x`, `time > "2026-01-31T09:00:00Z" OR tool = x`, `NOT time > "2026-01-31T09:00:00Z"`, `time != "2026-01-31T09:00:00Z"`} {
		f, err := filters.Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		if start, end := f.Window(); start >= 0 || end < at(24) {
			t.Errorf("%s demands %d to %d", source, start, end)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`tool = "payments.issue_refund" AND verdict = DENY AND time > "2026-01-31T09:00:00Z"`, `check:"small" AND NOT (tenant = acme OR -tenant = globex)`,
		`NOT()`, `a(b(c(d`, `((((((x`, `tool = f(x, y)`, `-1 = -1.5`, `0x = 1`, `"\u12`, "tool\n=\n\xff", `AND(tool = x, tool = y)`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		filter, err := filters.Parse(source)
		if err != nil {
			var wrong *filters.Error
			if !errors.As(err, &wrong) || wrong.Column < 1 || wrong.Column > len([]rune(source))+1 && wrong.Column != filters.MaxLength+1 || wrong.Message == "" {
				t.Fatalf("%q: %v", source, err)
			}
			return
		}
		e := entry()
		if filter.Match(e, filter.Recall(e.Subject)) == filter.Match(e, ^filter.Recall(e.Subject)) && filter != nil && filter.Root.Joint == filters.One && filter.OfDecision() {
			t.Fatalf("%q says the same whatever its subject", source)
		}
		start, end := filter.Window()
		if filter.Match(e, filter.Recall(e.Subject)) && (e.Time < start || e.Time >= end) {
			t.Fatalf("%q selects what is not of its window", source)
		}
	})
}
