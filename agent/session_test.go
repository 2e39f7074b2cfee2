// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"path/filepath"
	"testing"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// carefulFiles make the workshop ask where things come from.
var carefulFiles = map[string]string{
	"checks/all.yaml": `checks:
  - name: asked_for
    tools: [workshop.send]
    expression: >-
      provenance(args.thing).from("user") && !session.called("workshop.send").with({"args.thing": args.thing})
    on_failure: ON_FAILURE_DENY
    message: ask the user
`,
	"grants/attest.yaml": `grants:
  - name: attesting
    effect: GRANT_EFFECT_ALLOW
    principals: {roles: [maker]}
    tools: [provenance.attest_user]
`,
}

func TestASessionIsTheFoldOfItsRecords(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{files: carefulFiles})
	who := request("workshop.send", "").Principal
	session, refusal := w.agent.BeginSession(t.Context(), who, "mine", 0)
	if refusal != nil {
		t.Fatal(refusal)
	}
	if attested, refusal := w.agent.Observe(t.Context(), who, session.Token, agent.Report{Text: "send chair", User: true}); refusal != nil || !attested {
		t.Fatal(attested, refusal)
	}
	send := func(tool, thing, token string) *agent.Admission {
		r := request(tool, thing)
		r.SessionToken = token
		return w.agent.Admit(t.Context(), r)
	}
	finish := func(ad *agent.Admission) {
		t.Helper()
		if refusal := ad.Refusal(); refusal != nil {
			t.Fatal(refusal)
		}
		execution := ad.Run(t.Context(), nil)
		if err := ad.Finish(execution.Outcome()); err != nil {
			t.Fatal(err)
		}
	}
	finish(send("workshop.make", "table", session.Token))
	let := send("workshop.send", "chair", session.Token)
	if let.Refusal() != nil {
		t.Fatal(let.Refusal())
	}
	if err := let.Release(); err != nil {
		t.Fatal(err)
	}
	if err := let.Finish(agent.Outcome{State: writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED}); err != nil {
		t.Fatal(err)
	}
	for name, ad := range map[string]*agent.Admission{
		"what was sent before": send("workshop.send", "chair", session.Token), "what a tool said": send("workshop.send", "table", session.Token),
		"in the ambient session": send("workshop.send", "chair", ""),
	} {
		if ad.Allowed() {
			t.Errorf("%s: the call is allowed", name)
		}
	}
	if got, want := w.folded(), w.agent.State().Dump(); got != want {
		t.Errorf("the fold of the records is another state than the live one:\n%s\nlive:\n%s", got, want)
	}
	if let.SessionID() != session.ID.String() || let.SessionID() == send("workshop.make", "x", "").SessionID() {
		t.Error("the calls do not tell their sessions")
	}
}

func TestAnIdempotencyKeyIsTheSessionsOwn(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{})
	who := request("workshop.make", "").Principal
	one, _ := w.agent.BeginSession(t.Context(), who, "", 0)
	two, _ := w.agent.BeginSession(t.Context(), who, "", 0)
	for _, token := range []string{one.Token, two.Token, ""} {
		r := request("workshop.make", "table")
		r.SessionToken, r.IdempotencyKey = token, "k"
		w.allow(r)
		if again := w.agent.Admit(t.Context(), r); again.Allowed() || again.EarlierID() == "" {
			t.Error("a key was taken twice in one session")
		}
	}
}

func TestABundleThatFirstAsksWhatWasReadFindsItNoted(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{})
	run := func(want bool) {
		t.Helper()
		ad := w.agent.Admit(t.Context(), request("workshop.make", "table"))
		if ad.Allowed() != want {
			t.Fatalf("allowed: %v, want %v", ad.Allowed(), want)
		}
		if want {
			execution := ad.Run(t.Context(), nil)
			if err := ad.Finish(execution.Outcome()); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(true)
	size := w.ledger.Status().Size
	run(true)
	if got := w.ledger.Status().Size - size; got != 2 {
		t.Errorf("%d records of a call whose session has read as much before, want its decision and its outcome", got)
	}
	w.check("!session.read_untrusted()")
	run(false)
	if got, want := w.folded(), w.agent.State().Dump(); got != want {
		t.Errorf("the fold of the records is another state than the live one:\n%s\nlive:\n%s", got, want)
	}
}

// check puts the bundle in force with one check more.
func (w *workshop) check(expression string) {
	w.t.Helper()
	w.add("checks/all.yaml", `checks:
  - name: careful
    tools: [workshop.make]
    expression: '`+expression+`'
    on_failure: ON_FAILURE_DENY
    message: not after what the session did
`)
	bundle, err := bundles.LoadDir(w.t.Context(), filepath.Join(w.dir, "bundle"), bundles.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.agent.Swap(w.t.Context(), bundle); err != nil {
		w.t.Fatal(err)
	}
}

func TestWhatNoBundleHadKeptIsUnknownAndNotAbsent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expression string
		before     bool // whether a call was made under the bundle before
		want       bool
	}{
		{`!session.called("workshop.make").with({"args.thing": args.thing})`, true, false},
		{`session.called("workshop.make").with({"args.thing": args.thing})`, true, false},
		{`!session.called("workshop.make").with({"args.thing": args.thing})`, false, true},
		{`!session.called("workshop.send").with({"args.thing": args.thing})`, true, true},
	} {
		w := openWorkshop(t, workshopOptions{})
		if c.before {
			w.allow(request("workshop.make", "table"))
		}
		w.check(c.expression)
		if got := w.agent.Admit(t.Context(), request("workshop.make", "table")).Allowed(); got != c.want {
			t.Errorf("%s, with a call before: %v: allowed %v, want %v", c.expression, c.before, got, c.want)
		}
	}
}
