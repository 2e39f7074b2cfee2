// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

const (
	choiceStop = writv1.StopChoice_STOP_CHOICE_STOP
	choiceLift = writv1.StopChoice_STOP_CHOICE_LIFT
)

// operators are ann of acme, oz of another tenant, una of who has none, and kim of all
// tenants; bob is none.
func operators() []agent.Approver {
	return []agent.Approver{
		{User: "ann", Tenant: "acme", Roles: []string{"operator"}, PublicKey: keys["ann"].PublicKey()},
		{User: "oz", Tenant: "other", Roles: []string{"operator", "boss"}, PublicKey: keys["oz"].PublicKey()},
		{User: "una", Roles: []string{"operator"}, PublicKey: keys["una"].PublicKey()},
		{User: "kim", AllTenants: true, Roles: []string{"operator"}, PublicKey: keys["kim"].PublicKey()},
		{User: "bob", Tenant: "acme", Roles: []string{"boss", "reviewer"}, PublicKey: keys["bob"].PublicKey()},
	}
}

// stoppable is a workshop with operators and a clock that a test sets.
type stoppable struct {
	*workshop
	now atomic.Int64
}

func openStoppable(t *testing.T) *stoppable {
	t.Helper()
	s := &stoppable{}
	s.now.Store(time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC).UnixNano())
	s.workshop = openWorkshop(t, workshopOptions{approvers: operators(), clock: s.time})
	return s
}

func (s *stoppable) time() time.Time         { return time.Unix(0, s.now.Load()).UTC() }
func (s *stoppable) pass(step time.Duration) { s.now.Add(int64(step)) }
func (s *stoppable) stop(scope *writv1.StopScope) *writv1.Stop {
	return &writv1.Stop{Scope: scope, Time: timestamppb.New(s.time()), ExpireTime: timestamppb.New(s.time().Add(time.Hour))}
}

// order gives a signed order, which must be taken.
func (s *stoppable) order(who string, stop *writv1.Stop, choice writv1.StopChoice) *writv1.HeldStop {
	s.t.Helper()
	held, refusal := s.agent.OrderStop(s.t.Context(), signedOrder(s.t, keys[who], stop, choice))
	if refusal != nil {
		s.t.Fatalf("the order is refused: %v", refusal)
	}
	return held
}

func signedOrder(t testing.TB, key *approvals.Key, stop *writv1.Stop, choice writv1.StopChoice) *writv1.StopOrder {
	t.Helper()
	order, err := key.Order(stop, choice)
	if err != nil {
		t.Fatal(err)
	}
	return order
}

// reason admits a call, and returns why it is refused.
func (s *stoppable) reason(r *agent.Request) writv1.Reason {
	s.t.Helper()
	admission := s.agent.Admit(s.t.Context(), r)
	if admission.Allowed() {
		return writv1.Reason_REASON_GRANTED
	}
	return admission.Refusal().Reason
}

func (s *stoppable) sameAsFolded() {
	s.t.Helper()
	if live, folded := s.agent.State().Dump(), s.folded(); live != folded {
		s.t.Errorf("live:\n%s\nfolded:\n%s", live, folded)
	}
}

func TestAStopDeniesWhatItSpeaksOfAndNothingElse(t *testing.T) {
	t.Parallel()
	call := func(change func(*agent.Request)) *agent.Request {
		r := request("workshop.make", "box")
		r.Principal.Workload = "spiffe://acme/desk"
		change(r)
		return r
	}
	usual := func(*agent.Request) {}
	model := func(r *agent.Request) { r.Envelope.ModelRoute, r.Envelope.ModelPin = "support", "gpt-9" }
	for name, test := range map[string]struct {
		scope          *writv1.StopScope
		stopped, going func(*agent.Request)
	}{
		"a tool": {
			&writv1.StopScope{Tool: "workshop.make"}, usual,
			func(r *agent.Request) { r.Envelope.ToolCall.Name = "workshop.send" },
		},
		"tools by their prefix": {&writv1.StopScope{Tool: "workshop.*"}, usual, nil},
		"every tool":            {&writv1.StopScope{Tool: "*"}, usual, nil},
		"a tenant":              {&writv1.StopScope{Tenant: proto.String("acme")}, usual, func(r *agent.Request) { r.Principal.Tenant = "other" }},
		"who has no tenant":     {&writv1.StopScope{Tenant: proto.String("")}, func(r *agent.Request) { r.Principal.Tenant = "" }, usual},
		"a user":                {&writv1.StopScope{Principal: "ann"}, usual, func(r *agent.Request) { r.Principal.User = "bob" }},
		"a workload":            {&writv1.StopScope{Principal: "spiffe://acme/desk"}, usual, func(r *agent.Request) { r.Principal.Workload = "spiffe://acme/other" }},
		"a model route":         {&writv1.StopScope{Model: "support"}, model, usual},
		"a model pin":           {&writv1.StopScope{Model: "gpt-9"}, model, usual},
		"a tool of one tenant": {
			&writv1.StopScope{Tool: "workshop.make", Tenant: proto.String("acme")}, usual,
			func(r *agent.Request) { r.Principal.Tenant = "other" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStoppable(t)
			s.order("kim", s.stop(test.scope), choiceStop)
			if got := s.reason(call(test.stopped)); got != writv1.Reason_REASON_GRANT_STOPPED {
				t.Errorf("a call that is stopped is answered with %s", got)
			}
			if test.going != nil && s.reason(call(test.going)) != writv1.Reason_REASON_GRANTED {
				t.Errorf("a call that is not stopped is answered with %s", s.reason(call(test.going)))
			}
			s.sameAsFolded()
		})
	}
}

func TestAStopOfASessionEndsItsCalls(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	session := s.allow(request("workshop.make", "box")).SessionID()
	s.order("ann", s.stop(&writv1.StopScope{Session: session, Tenant: proto.String("acme")}), choiceStop)
	if got := s.reason(request("workshop.make", "box")); got != writv1.Reason_REASON_GRANT_STOPPED {
		t.Errorf("a call of the session is answered with %s", got)
	}
	other := request("workshop.make", "box")
	other.Principal.User = "eve"
	if got := s.reason(other); got != writv1.Reason_REASON_GRANTED {
		t.Errorf("a call of another session is answered with %s", got)
	}
}

func TestAStopEndsByItselfOrIsLiftedForGood(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	short, long := s.stop(&writv1.StopScope{Tool: "workshop.make"}), s.stop(&writv1.StopScope{Tool: "workshop.*"})
	long.ExpireTime = timestamppb.New(s.time().Add(2 * time.Hour))
	s.order("kim", short, choiceStop)
	s.order("kim", long, choiceStop)
	check := s.agent.Admit(t.Context(), request("workshop.make", "box")).Decision().GetChecks()
	told := ""
	for _, c := range check {
		if c.GetName() == "stopped" {
			told = c.GetMessage()
		}
	}
	if !strings.Contains(told, "until 2026-11-27T14:00:00Z") {
		t.Errorf("the caller is told %q, not until when", told)
	}
	s.pass(time.Hour)
	if got := s.reason(request("workshop.make", "box")); got != writv1.Reason_REASON_GRANT_STOPPED {
		t.Errorf("under the longer stop: %s", got)
	}
	s.order("kim", long, choiceLift)
	if got := s.reason(request("workshop.make", "box")); got != writv1.Reason_REASON_GRANTED {
		t.Errorf("after both have ended: %s", got)
	}
	_, again := s.agent.OrderStop(t.Context(), signedOrder(t, keys["kim"], long, choiceStop))
	if again == nil || again.Reason != writv1.Reason_REASON_STOP_OVER {
		t.Errorf("a lifted stop is ordered again: %v", again)
	}
	_, late := s.agent.OrderStop(t.Context(), signedOrder(t, keys["kim"], short, choiceStop))
	if late == nil || late.Reason != writv1.Reason_REASON_STOP_OVER {
		t.Errorf("a stop that has ended is ordered again: %v", late)
	}
}

func TestAnOrderThatComesAgainIsRecordedOnce(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	stop := s.stop(&writv1.StopScope{Tool: "workshop.make"})
	for range 3 {
		s.order("kim", stop, choiceStop)
	}
	orders := 0
	s.records(func(r *writv1.Record) {
		if r.GetKind() == writv1.RecordKind_RECORD_KIND_STOP {
			orders++
		}
	})
	if orders != 1 {
		t.Errorf("%d records of one order", orders)
	}
}

func TestALiftThatComesBeforeItsStopHolds(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	stop := s.stop(&writv1.StopScope{Tool: "workshop.make"})
	s.order("kim", stop, choiceLift)
	if _, refusal := s.agent.OrderStop(t.Context(), signedOrder(t, keys["kim"], stop, choiceStop)); refusal == nil {
		t.Error("the stop is taken after its lift")
	}
	if got := s.reason(request("workshop.make", "box")); got != writv1.Reason_REASON_GRANTED {
		t.Errorf("the call is answered with %s", got)
	}
}

func TestOrdersThatAreNotTaken(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	acme, all := &writv1.StopScope{Tenant: proto.String("acme")}, &writv1.StopScope{Tool: "*"}
	changed := func(order *writv1.StopOrder, change func(*writv1.StopOrder)) *writv1.StopOrder {
		change(order)
		return order
	}
	long, before, future := s.stop(acme), s.stop(acme), s.stop(acme)
	long.ExpireTime = timestamppb.New(s.time().Add(32 * 24 * time.Hour))
	before.ExpireTime = before.GetTime()
	future.Time = timestamppb.New(s.time().Add(10 * time.Minute))
	not, over := writv1.Reason_REASON_STOP_NOT_OPERATOR, writv1.Reason_REASON_STOP_OVER
	for name, test := range map[string]struct {
		order *writv1.StopOrder
		want  writv1.Reason
	}{
		"one of somebody with other roles":  {signedOrder(t, keys["bob"], s.stop(acme), choiceStop), not},
		"one of a stranger":                 {signedOrder(t, newKey("mallory"), s.stop(acme), choiceStop), not},
		"one of another tenant's operator":  {signedOrder(t, keys["oz"], s.stop(acme), choiceStop), not},
		"one of a tenant's for all tenants": {signedOrder(t, keys["ann"], s.stop(all), choiceStop), not},
		"one of nobody's for all tenants":   {signedOrder(t, keys["una"], s.stop(all), choiceStop), not},
		"a lift by another tenant":          {signedOrder(t, keys["oz"], s.stop(acme), choiceLift), not},
		"one with another's key":            {changed(signedOrder(t, keys["ann"], s.stop(acme), choiceStop), func(o *writv1.StopOrder) { o.Operator = "kim" }), not},
		"one whose scope was widened":       {changed(signedOrder(t, keys["kim"], s.stop(acme), choiceStop), func(o *writv1.StopOrder) { o.Stop.Scope = all }), not},
		"a stop turned into a lift":         {changed(signedOrder(t, keys["ann"], s.stop(acme), choiceStop), func(o *writv1.StopOrder) { o.Choice = choiceLift }), not},
		"one that lasts too long":           {signedOrder(t, keys["ann"], long, choiceStop), over},
		"one that ends before it begins":    {signedOrder(t, keys["ann"], before, choiceStop), over},
		"one of a time to come":             {signedOrder(t, keys["ann"], future, choiceStop), over},
		"one that names nothing":            {signedOrder(t, keys["kim"], s.stop(&writv1.StopScope{}), choiceStop), writv1.Reason_REASON_DECODE_MALFORMED},
		"one whose tool is no tool's name":  {signedOrder(t, keys["kim"], s.stop(&writv1.StopScope{Tool: "a b"}), choiceStop), writv1.Reason_REASON_DECODE_MALFORMED},
		"one that neither stops nor lifts":  {signedOrder(t, keys["kim"], s.stop(all), 0), writv1.Reason_REASON_DECODE_MALFORMED},
		"one without a stop":                {&writv1.StopOrder{Choice: choiceStop, Operator: "kim"}, writv1.Reason_REASON_DECODE_MALFORMED},
		"a session that is no session's id": {signedOrder(t, keys["kim"], s.stop(&writv1.StopScope{Session: "x"}), choiceStop), writv1.Reason_REASON_DECODE_MALFORMED},
	} {
		if _, refusal := s.agent.OrderStop(t.Context(), test.order); refusal == nil || refusal.Reason != test.want {
			t.Errorf("%s: %v, want %s", name, refusal, test.want)
		}
	}
	if got := s.reason(request("workshop.make", "box")); got != writv1.Reason_REASON_GRANTED {
		t.Errorf("after all that a call is answered with %s", got)
	}
}

func TestAnOperatorOfAllTenantsApprovesAndReviewsNothing(t *testing.T) {
	t.Parallel()
	// The configuration refuses such roles; the agent would not heed them.
	all := agent.Approver{User: "kim", AllTenants: true, Roles: []string{"operator", "boss", "reviewer"}, PublicKey: keys["kim"].PublicKey()}
	w := openWorkshop(t, workshopOptions{files: map[string]string{"approvals/all.yaml": careful}, approvers: append(approvers()[:1], all)})
	free := request("workshop.make", "big")
	free.Principal.Tenant = ""
	id := w.pending(free)
	if _, refusal := w.agent.Approval(w.view("kim"), id); refusal == nil {
		t.Error("an operator of all tenants sees the approvals of those without one")
	}
}

func TestStopsAreShownToTheirOperators(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	s.order("ann", s.stop(&writv1.StopScope{Tenant: proto.String("acme")}), choiceStop)
	s.pass(time.Second)
	s.order("kim", s.stop(&writv1.StopScope{Tool: "workshop.send"}), choiceStop)
	for who, want := range map[string]int{"ann": 1, "oz": 0, "kim": 2, "bob": 0} {
		credential, err := keys[who].Credential(&writv1.ApproverCredential{Time: timestamppb.New(s.time())})
		if err != nil {
			t.Fatal(err)
		}
		view, refusal := s.agent.ApproverView(credential)
		if refusal != nil {
			t.Fatal(refusal)
		}
		if got := s.agent.Stops(view); len(got) != want {
			t.Errorf("%s sees %v, want %d stops", who, got, want)
		}
	}
	if got := s.agent.Stops(agent.OwnView(request("x", "").Principal)); len(got) != 0 {
		t.Errorf("a planner sees %v", got)
	}
}

func TestAStopOutlivesTheBundleAndTheAgent(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	s.order("kim", s.stop(&writv1.StopScope{Tool: "workshop.make"}), choiceStop)
	files := maps.Clone(workshopFiles)
	files["bundle.yaml"] = "name: another\n"
	s.swap(files)
	if got := s.reason(request("workshop.make", "box")); got != writv1.Reason_REASON_GRANT_STOPPED {
		t.Errorf("under another bundle: %s", got)
	}
	s.sameAsFolded()
	root, err := s.ledger.RootAt(s.ledger.Status().Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.agent.State().SaveSnapshot(s.dir, s.ledger.Origin(), root); err != nil {
		t.Fatal(err)
	}
	loaded, err := agent.LoadSnapshot(s.dir, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	if live, kept := s.agent.State().Dump(), loaded.Dump(); live != kept || !strings.Contains(kept, "STOP_CHOICE_STOP") {
		t.Errorf("live:\n%s\nin the snapshot:\n%s", live, kept)
	}
}

func TestNoCallThatComesAfterTheAnswerIsAllowed(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	var stopped atomic.Bool
	var before, after, late atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for after.Load() < 200 {
				known := stopped.Load()
				allowed := s.agent.Admit(t.Context(), request("workshop.make", "box")).Allowed()
				switch {
				case known && allowed:
					late.Add(1)
					after.Add(1)
				case known:
					after.Add(1)
				default:
					before.Add(1)
				}
			}
		})
	}
	for before.Load() < 100 {
		runtime.Gosched()
	}
	s.order("kim", s.stop(&writv1.StopScope{Tool: "workshop.make"}), choiceStop)
	stopped.Store(true)
	group.Wait()
	if late.Load() > 0 {
		t.Errorf("%d calls were allowed after the order's answer", late.Load())
	}
	s.sameAsFolded()
}
