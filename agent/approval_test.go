// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

const careful = `approvals:
  - name: careful
    tools: [workshop.make]
    condition: args.thing.startsWith("big")
    roles: [boss]
    quorum: 1
    expiry: 600s
`

// keys are those of everybody who may approve something.
var keys = map[string]*approvals.Key{"bob": newKey("bob"), "ann": newKey("ann"), "oz": newKey("oz"), "kim": newKey("kim"), "una": newKey("una")}

func newKey(user string) *approvals.Key {
	text, _, err := note.GenerateKey(rand.Reader, user)
	if err != nil {
		panic(err)
	}
	key, err := approvals.ParseKey(text)
	if err != nil {
		panic(err)
	}
	return key
}

func approvers() []agent.Approver {
	of := func(user, tenant string, roles ...string) agent.Approver {
		return agent.Approver{User: user, Tenant: tenant, Roles: roles, PublicKey: keys[user].PublicKey()}
	}
	return []agent.Approver{of("bob", "acme", "boss"), of("ann", "acme", "boss"), of("oz", "other", "boss"), of("kim", "acme", "clerk")}
}

func openCareful(t *testing.T) *workshop {
	t.Helper()
	return openWorkshop(t, workshopOptions{files: map[string]string{"approvals/all.yaml": careful}, approvers: approvers()})
}

// pending admits a request that must wait for an approval, and returns its id.
func (w *workshop) pending(r *agent.Request) string {
	w.t.Helper()
	admission := w.agent.Admit(w.t.Context(), r)
	if got := admission.Decision().GetVerdict(); got != writv1.Verdict_VERDICT_NEEDS_APPROVAL || admission.ApprovalID() == "" {
		w.t.Fatalf("the verdict is %s with approval %q, not NEEDS_APPROVAL: %v", got, admission.ApprovalID(), admission.Refusal())
	}
	return admission.ApprovalID()
}

// signed returns a vote on an approval.
func (w *workshop) signed(id string, key *approvals.Key, choice writv1.ApprovalChoice) *writv1.ApprovalVote {
	w.t.Helper()
	approval, refusal := w.agent.Approval(w.view("bob"), id)
	if refusal != nil {
		w.t.Fatal(refusal)
	}
	vote, err := key.Vote(approval.GetSubject(), choice)
	if err != nil {
		w.t.Fatal(err)
	}
	return vote
}

// view is what an approver sees.
func (w *workshop) view(user string) agent.Viewer {
	w.t.Helper()
	credential, err := keys[user].Credential(&writv1.ApproverCredential{Time: timestamppb.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	view, refusal := w.agent.ApproverView(credential)
	if refusal != nil {
		w.t.Fatal(refusal)
	}
	return view
}

func (w *workshop) approve(id string) {
	w.t.Helper()
	approval, err := w.agent.Vote(w.t.Context(), w.signed(id, keys["bob"], writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE))
	if err != nil || approval.GetState() != writv1.ApprovalState_APPROVAL_STATE_APPROVED {
		w.t.Fatalf("after the vote the approval is %s: %v", approval.GetState(), err)
	}
}

func TestAnApprovedCallRunsOnceAndARepeatAsksAgain(t *testing.T) {
	t.Parallel()
	w := openCareful(t)
	w.allow(request("workshop.make", "small"))
	id := w.pending(request("workshop.make", "big"))
	if again := w.pending(request("workshop.make", "big")); again != id {
		t.Errorf("a repeat waits for %s, not %s", again, id)
	}
	w.approve(id)
	w.allow(request("workshop.make", "big"))
	if next := w.pending(request("workshop.make", "big")); next == id {
		t.Error("a used approval is asked for again under its id")
	}
	if live, folded := w.agent.State().Dump(), w.folded(); live != folded {
		t.Errorf("live:\n%s\nfolded:\n%s", live, folded)
	}
}

func TestAnApprovalIsOfOneCallAlone(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*agent.Request){
		"another argument":  func(r *agent.Request) { r.Arguments.JSON = []byte(`{"thing":"bigger"}`) },
		"another principal": func(r *agent.Request) { r.Principal.User = "eve" },
		"another workload":  func(r *agent.Request) { r.Principal.Workload = "spiffe://x/y" },
		"another tenant":    func(r *agent.Request) { r.Principal.Tenant = "other" },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openCareful(t)
			id := w.pending(request("workshop.make", "big"))
			w.approve(id)
			other := request("workshop.make", "big")
			change(other)
			if got := w.pending(other); got == id {
				t.Error("it waits for the same approval")
			}
			w.allow(request("workshop.make", "big"))
		})
	}
}

func TestVotesThatDoNotCount(t *testing.T) {
	t.Parallel()
	yes, no := writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE, writv1.ApprovalChoice_APPROVAL_CHOICE_DENY
	w := openCareful(t)
	id := w.pending(request("workshop.make", "big"))
	other := w.pending(request("workshop.make", "big2"))
	refused := func(name string, vote *writv1.ApprovalVote, want writv1.Reason) {
		t.Helper()
		if _, refusal := w.agent.Vote(t.Context(), vote); refusal == nil || refusal.Reason != want {
			t.Errorf("%s: %v, want %v", name, refusal, want)
		}
	}
	notApprover, unknown := writv1.Reason_REASON_APPROVAL_NOT_APPROVER, writv1.Reason_REASON_APPROVAL_UNKNOWN
	refused("the requester's own", w.signed(id, keys["ann"], yes), notApprover)
	borrowed := w.signed(id, keys["ann"], yes)
	borrowed.Approver = "bob"
	refused("one with another's key", borrowed, notApprover)
	refused("one of somebody with another role", w.signed(id, keys["kim"], yes), unknown)
	refused("another tenant's approver", w.signed(id, keys["oz"], yes), unknown)
	replayed := w.signed(other, keys["bob"], yes)
	replayed.ApprovalId = id
	refused("one signed for another call", replayed, notApprover)
	turned := w.signed(id, keys["bob"], no)
	turned.Choice = yes
	refused("a denial turned around", turned, notApprover)
	refused("one of an unknown approval", &writv1.ApprovalVote{ApprovalId: strings.Repeat("0", 32)}, notApprover)
	w.approve(id)
	refused("a repeated one", w.signed(id, keys["bob"], yes), writv1.Reason_REASON_APPROVAL_DECIDED)
	if _, err := w.agent.Vote(t.Context(), w.signed(id, keys["bob"], no)); err != nil {
		t.Errorf("an approval that was not used cannot be denied: %v", err)
	}
	admission := w.agent.Admit(t.Context(), request("workshop.make", "big"))
	if got := admission.Refusal(); got == nil || got.Reason != writv1.Reason_REASON_APPROVAL_DENIED {
		t.Errorf("a denied call is answered with %v", got)
	}
	if live, folded := w.agent.State().Dump(), w.folded(); live != folded {
		t.Errorf("live:\n%s\nfolded:\n%s", live, folded)
	}
}

func TestAThousandConcurrentUsesOfOneApprovalRunOnce(t *testing.T) {
	t.Parallel()
	w := openCareful(t)
	w.approve(w.pending(request("workshop.make", "big")))
	var allowed atomic.Int64
	var group sync.WaitGroup
	for range 1000 {
		group.Go(func() {
			if w.agent.Admit(t.Context(), request("workshop.make", "big")).Allowed() {
				allowed.Add(1)
			}
		})
	}
	group.Wait()
	if got := allowed.Load(); got != 1 {
		t.Errorf("%d calls ran under one approval", got)
	}
	if live, folded := w.agent.State().Dump(), w.folded(); live != folded {
		t.Errorf("live:\n%s\nfolded:\n%s", live, folded)
	}
}

func TestAnApprovalDoesNotOutliveWhatItRestsOn(t *testing.T) {
	t.Parallel()
	// Each change makes another bundle of the careful one.
	for name, files := range map[string]map[string]string{
		"another rule":   {"approvals/all.yaml": strings.Replace(careful, "roles: [boss]", "roles: [boss, clerk]", 1)},
		"another grant":  {"grants/all.yaml": strings.Replace(workshopFiles["grants/all.yaml"], "    tools:", "    condition: args.thing != \"\"\n    tools:", 1)},
		"another schema": {"protos/workshop.proto": strings.Replace(workshopFiles["protos/workshop.proto"], "max_len = 1000000", "max_len = 999999", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openCareful(t)
			id := w.pending(request("workshop.make", "big"))
			w.approve(id)
			all := maps.Clone(workshopFiles)
			all["approvals/all.yaml"] = careful
			maps.Copy(all, files)
			w.swap(all)
			if got := w.pending(request("workshop.make", "big")); got == id {
				t.Error("the approval of the earlier bundle still counts")
			}
		})
	}
}

// swap puts a bundle of files in force.
func (w *workshop) swap(files map[string]string) {
	w.t.Helper()
	dir := w.t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			w.t.Fatal(err)
		}
	}
	bundle, err := bundles.LoadDir(w.t.Context(), dir, bundles.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.agent.Swap(w.t.Context(), bundle); err != nil {
		w.t.Fatal(err)
	}
}

func TestAnApprovalIsOfOneSessionAndEnds(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	w := openWorkshop(t, workshopOptions{
		files: map[string]string{"approvals/all.yaml": careful}, approvers: approvers(),
		clock: func() time.Time { return time.Now().Add(time.Duration(passed.Load())) },
	})
	session, refusal := w.agent.BeginSession(t.Context(), request("", "").Principal, "", 0)
	if refusal != nil {
		t.Fatal(refusal)
	}
	id := w.pending(request("workshop.make", "big"))
	w.approve(id)
	elsewhere := request("workshop.make", "big")
	elsewhere.SessionToken = session.Token
	if got := w.pending(elsewhere); got == id {
		t.Error("the approval counts in another session")
	}
	passed.Store(int64(10 * time.Minute))
	if got := w.pending(request("workshop.make", "big")); got == id {
		t.Error("the approval has expired and counts")
	}
	late := w.signedAt(id, 10*time.Minute)
	if _, refusal := w.agent.Vote(t.Context(), late); refusal == nil || refusal.Reason != writv1.Reason_REASON_APPROVAL_DECIDED {
		t.Errorf("a vote on an expired approval: %v", refusal)
	}
}

// signedAt is a denial of bob's of an approval, made when so much time has passed.
func (w *workshop) signedAt(id string, passed time.Duration) *writv1.ApprovalVote {
	w.t.Helper()
	credential, err := keys["bob"].Credential(&writv1.ApproverCredential{Time: timestamppb.New(time.Now().Add(passed))})
	if err != nil {
		w.t.Fatal(err)
	}
	view, refusal := w.agent.ApproverView(credential)
	if refusal != nil {
		w.t.Fatal(refusal)
	}
	approval, refusal := w.agent.Approval(view, id)
	if refusal != nil {
		w.t.Fatal(refusal)
	}
	vote, err := keys["bob"].Vote(approval.GetSubject(), writv1.ApprovalChoice_APPROVAL_CHOICE_DENY)
	if err != nil {
		w.t.Fatal(err)
	}
	return vote
}

func TestAnApprovalTellsWhatChangedSinceTheLast(t *testing.T) {
	t.Parallel()
	w := openCareful(t)
	w.approve(w.pending(request("workshop.make", "big")))
	w.allow(request("workshop.make", "big"))
	approval, refusal := w.agent.Approval(w.view("bob"), w.pending(request("workshop.make", "bigger")))
	if refusal != nil {
		t.Fatal(refusal)
	}
	if got := approval.GetSimilar().GetChanged(); len(got) != 1 || got[0] != "thing" {
		t.Errorf("changed: %v", got)
	}
	if approval.GetSubject().GetEffect() != writv1.ToolEffect_TOOL_EFFECT_WRITE || len(approval.GetSubject().GetChecks()) == 0 {
		t.Errorf("the approver is not told what the call does and who asks: %v", approval.GetSubject())
	}
}

func TestWhoLooksSeesOnlyWhatConcernsThem(t *testing.T) {
	t.Parallel()
	w := openCareful(t)
	w.pending(request("workshop.make", "big"))
	for name, c := range map[string]struct {
		view agent.Viewer
		want int
	}{
		"an approver": {w.view("bob"), 1}, "an approver of another role": {w.view("kim"), 0}, "an approver of another tenant": {w.view("oz"), 0},
		"who asked":    {agent.OwnView(request("", "").Principal), 1},
		"another user": {agent.OwnView(&writv1.Principal{User: "eve", Tenant: "acme"}), 0},
	} {
		if got := len(w.agent.Approvals(c.view)); got != c.want {
			t.Errorf("%s sees %d approvals, want %d", name, got, c.want)
		}
	}
	old, err := keys["bob"].Credential(&writv1.ApproverCredential{Time: timestamppb.New(time.Now().Add(-2 * time.Minute))})
	if err != nil {
		t.Fatal(err)
	}
	if _, refusal := w.agent.ApproverView(old); refusal == nil {
		t.Error("a credential of two minutes ago counts")
	}
}

const bounded = `approvals:
  - name: bounded
    tools: [workshop.make]
    condition: args.thing.startsWith("big")
    roles: [boss]
    at_most: [cents, lot.pieces]
    expiry: 600s
`

// openBounded opens a workshop whose approvals let lower amounts through.
func openBounded(t *testing.T) *workshop {
	t.Helper()
	protos := strings.Replace(workshopFiles["protos/workshop.proto"], "max_len = 1000000];\n}", "max_len = 1000000];\n  int64 cents = 2;\n  Lot lot = 3;\n  string note = 4;\n}\nmessage Lot { uint32 pieces = 1; optional string unit = 2; }", 1)
	return openWorkshop(t, workshopOptions{
		files: map[string]string{"approvals/all.yaml": bounded, "protos/workshop.proto": protos}, approvers: approvers(),
	})
}

// with is a call with given arguments.
func with(arguments string) *agent.Request {
	r := request("workshop.make", "")
	r.Arguments.JSON = []byte(arguments)
	return r
}

func TestAnApprovalWithBoundsLetsLowerValuesThroughOnce(t *testing.T) {
	t.Parallel()
	const asked = `{"thing":"big","cents":500,"lot":{"pieces":10,"unit":"box"},"note":"n"}`
	for name, c := range map[string]struct {
		arguments string
		allowed   bool
	}{
		"the call that asked":           {asked, true},
		"one value lower":               {`{"thing":"big","cents":499,"lot":{"pieces":10,"unit":"box"},"note":"n"}`, true},
		"both as low as may be":         {`{"thing":"big","cents":1,"lot":{"pieces":1,"unit":"box"},"note":"n"}`, true},
		"one value higher":              {`{"thing":"big","cents":501,"lot":{"pieces":1,"unit":"box"},"note":"n"}`, false},
		"one lower and one higher":      {`{"thing":"big","cents":1,"lot":{"pieces":11,"unit":"box"},"note":"n"}`, false},
		"zero, which may mean all":      {`{"thing":"big","cents":0,"lot":{"pieces":10,"unit":"box"},"note":"n"}`, false},
		"absent, which may mean all":    {`{"thing":"big","lot":{"pieces":10,"unit":"box"},"note":"n"}`, false},
		"negative":                      {`{"thing":"big","cents":-5,"lot":{"pieces":10,"unit":"box"},"note":"n"}`, false},
		"the message around it absent":  {`{"thing":"big","cents":500,"note":"n"}`, false},
		"another thing":                 {`{"thing":"bigger","cents":500,"lot":{"pieces":10,"unit":"box"},"note":"n"}`, false},
		"another field beside a bound":  {`{"thing":"big","cents":400,"lot":{"pieces":10,"unit":"ton"},"note":"n"}`, false},
		"a field that is left out":      {`{"thing":"big","cents":400,"lot":{"pieces":10,"unit":"box"}}`, false},
		"an empty field that was there": {`{"thing":"big","cents":400,"lot":{"pieces":10,"unit":""},"note":"n"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openBounded(t)
			id := w.pending(with(asked))
			w.approve(id)
			if !c.allowed {
				if got := w.pending(with(c.arguments)); got == id {
					t.Error("the call waits for the approval of another")
				}
				// What was approved is so all the same.
				if c.arguments != asked && strings.Contains(name, "another") {
					w.allow(with(asked))
				}
				return
			}
			w.allow(with(c.arguments))
			for _, again := range []string{c.arguments, asked} {
				if w.pending(with(again)) == id {
					t.Error("the approval counts twice")
				}
			}
			if got, want := w.folded(), w.agent.State().Dump(); got != want {
				t.Errorf("the fold of the records is another state than the live one:\n%s\nlive:\n%s", got, want)
			}
		})
	}
}

func TestAHigherCallThatIsApprovedCoversTheLowerOneThatWaited(t *testing.T) {
	t.Parallel()
	w := openBounded(t)
	call := func(cents string) *agent.Request {
		return with(`{"thing":"big","cents":` + cents + `,"lot":{"pieces":1}}`)
	}
	low := w.pending(call("100"))
	high := w.pending(call("200"))
	if low == high || w.pending(call("100")) != high || w.pending(call("150")) != high {
		t.Error("a lower call does not wait for the newest approval that covers it")
	}
	w.approve(high)
	w.allow(call("150"))
	if next := w.pending(call("100")); next == high || next == low {
		t.Error("one approval lets two calls through")
	}
}
