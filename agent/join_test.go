// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"testing"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestTheSecondFilterOfARoute(t *testing.T) {
	t.Parallel()
	unread := reasons.New(writv1.Reason_REASON_DECODE_COMPRESSED, "content-encoding", "the body has a content encoding")
	cases := []struct {
		name    string
		change  func(*agent.Request)
		joins   bool
		reason  writv1.Reason
		outcome writv1.Reason
	}{
		{"joins the call that the first decided on", func(*agent.Request) {}, true, 0, 0},
		{
			"refuses a call that it cannot read, for that reason",
			func(r *agent.Request) { r.Refusal = unread },
			false, unread.Reason, unread.Reason,
		},
		{
			"refuses a call that changed",
			func(r *agent.Request) { r.Arguments.JSON = []byte(`{"thing":"axe"}`) },
			false, writv1.Reason_REASON_ADMISSION_BODY_CHANGED, writv1.Reason_REASON_ADMISSION_BODY_CHANGED,
		},
		{
			"refuses a call of somebody else",
			func(r *agent.Request) { r.Principal.User = "bob" },
			false, writv1.Reason_REASON_ADMISSION_BODY_CHANGED, writv1.Reason_REASON_ADMISSION_BODY_CHANGED,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := openWorkshop(t, workshopOptions{})
			first := w.allow(request("workshop.send", "spoon"))
			again := request("workshop.send", "spoon")
			c.change(again)
			second := w.agent.Join(t.Context(), first.ID(), again)
			if joins := second == first; joins != c.joins {
				t.Fatalf("joins: %v, want %v", joins, c.joins)
			}
			if c.joins {
				return
			}
			if got := second.Refusal(); got == nil || got.Reason != c.reason {
				t.Errorf("refused with %v, want %v", got, c.reason)
			}
			found := w.entries()
			if len(found) != 3 || found[1].outcome == nil || found[2].decision == nil {
				t.Fatalf("records: %v, want a decision, its outcome, a decision", found)
			}
			if got := found[1].outcome; got.GetState() != writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED || got.GetReason() != c.outcome {
				t.Errorf("the first ended as %v, want NOT_STARTED, %v", got, c.outcome)
			}
			if got := found[2].decision.GetDecision().GetReason(); got != c.reason {
				t.Errorf("recorded %v, want %v", got, c.reason)
			}
			if err := first.Release(); err == nil {
				t.Error("the first can still be released")
			}
		})
	}
}

func TestAnAdmissionIsJoinedOnce(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{})
	first := w.allow(request("workshop.send", "spoon"))
	if w.agent.Join(t.Context(), first.ID(), request("workshop.send", "spoon")) != first {
		t.Fatal("the second filter does not join")
	}
	third := w.agent.Join(t.Context(), first.ID(), request("workshop.send", "fork"))
	if third == first || third.Refusal() != nil {
		t.Errorf("a third is not decided on by itself: %v", third.Refusal())
	}
	if err := first.Release(); err != nil {
		t.Errorf("a third keeps the joined call from being released: %v", err)
	}
}
