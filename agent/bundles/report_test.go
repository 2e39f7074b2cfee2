// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/writ-dev/writ/agent/bundles"
)

const failing = `tests:
  - name: a buyer orders
    principal: {user: ann}
    envelope: {tool_call: {name: shop.order, args: {item: tea, count: 1}}}
    want: {verdict: VERDICT_ALLOW, reason: REASON_GRANTED, checks: {grant/buyers: CHECK_OUTCOME_PASS}}
  - name: nobody orders & nobody <pays>
    envelope: {tool_call: {name: shop.order, args: {item: tea}}}
    want:
      verdict: VERDICT_ALLOW
      reason: REASON_GRANTED
      checks: {authenticated: CHECK_OUTCOME_PASS, buyers: CHECK_OUTCOME_PASS}
`

func report(t *testing.T) *bundles.Report {
	t.Helper()
	loaded, err := bundles.Load(t.Context(), write(t, []txtar.File{{Name: "tests/a.yaml", Data: []byte(failing)}}), bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return bundles.RunTests(loaded.Bundle, loaded.Suites, stopped)
}

func TestAFailingTestSaysWhatDiffersAndWhy(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	if err := report(t).WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := `FAIL tests/a.yaml:6: nobody orders & nobody <pays>
    verdict: want ALLOW, got DENY
    reason: want GRANTED, got PRINCIPAL_UNAUTHENTICATED
    check authenticated: want PASS, got FAIL (present a client certificate or a token that names a workload or a user)
    check buyers: want PASS, got no such check
    the decision was:
      DENY  PRINCIPAL_UNAUTHENTICATED

      principal   FAIL authenticated  PRINCIPAL_UNAUTHENTICATED: present a client certificate or a token that names a workload or a user
2 tests, 1 passed, 1 failed
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestTheReportForProgramsCounts(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	if err := report(t).WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Tests, Failed int
		Cases         []struct {
			Name, Verdict, Reason string
			Passed                bool
			Differences           []string
		}
	}
	if err := json.Unmarshal([]byte(text.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Tests != 2 || got.Failed != 1 || !got.Cases[0].Passed || got.Cases[1].Verdict != "DENY" || len(got.Cases[1].Differences) != 4 {
		t.Errorf("report %+v", got)
	}
}

func TestTheJUnitReportIsXMLWithOneFailure(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	if err := report(t).WriteJUnit(&text); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string  `xml:"name,attr"`
				Failure *string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(text.String()), &got); err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}
	cases := got.Suites[0].Cases
	if got.Failures != 1 || got.Suites[0].Name != "tests/a.yaml" || cases[0].Failure != nil || cases[1].Failure == nil || cases[1].Name != "nobody orders & nobody <pays>" {
		t.Errorf("report:\n%s", text.String())
	}
}
