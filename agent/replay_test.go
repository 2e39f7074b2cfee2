// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/agent/replay"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Calls that fight for budgets are decided again and again before they are recorded: what
// is recorded must be what the decision read.
func TestWhatIsRecordedUnderContentionReplaysToTheByte(t *testing.T) {
	t.Parallel()
	s := openStoppable(t)
	s.swap(map[string]string{
		"bundle.yaml": "name: contended\n", "protos/workshop.proto": workshopFiles["protos/workshop.proto"],
		"grants/all.yaml": workshopFiles["grants/all.yaml"], "catalogue.yaml": workshopFiles["catalogue.yaml"],
		"approvals/all.yaml": careful,
		"limits/all.yaml":    "limits:\n  - {name: many, scope: LIMIT_SCOPE_SESSION, calls: 100}\n",
		"budgets/all.yaml": `budgets:
  - {name: all, tools: ["*"], scopes: [BUDGET_SCOPE_TENANT], dimension: DIMENSION_CALLS, limit: 300, rolling: 3600s}
  - {name: each, tools: ["*"], scopes: [BUDGET_SCOPE_USER], dimension: DIMENSION_CALLS, limit: 90, window: 3600s}
`,
	})
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			for i := range 60 {
				r := request("workshop.make", []string{"box", "big"}[min(1, i%9/8)])
				r.Principal.User = fmt.Sprintf("user%d", (n+i)%4)
				if n == 0 && i == 50 {
					stop := &writv1.Stop{Scope: &writv1.StopScope{Principal: "user1"}, Time: timestamppb.New(s.time()), ExpireTime: timestamppb.New(s.time().Add(60))}
					if _, refusal := s.agent.OrderStop(t.Context(), signedOrder(t, keys["kim"], stop, choiceStop)); refusal != nil {
						t.Error(refusal)
					}
				}
				s.agent.Admit(t.Context(), r)
			}
		})
	}
	group.Wait()
	bundle, came := s.agent.Bundle(), make(map[writv1.Reason]int)
	s.records(func(record *writv1.Record) {
		body := &writv1.DecisionRecord{}
		if record.GetKind() != writv1.RecordKind_RECORD_KIND_DECISION {
			return
		}
		if err := canonical.Unmarshal(record.GetBody(), body); err != nil {
			t.Fatal(err)
		}
		came[body.GetDecision().GetReason()]++
		if again, err := replay.Decide(bundle, record, body); err != nil || !again.Same {
			t.Errorf("record %d: %+v, %v, was %v over %v", record.GetIndex(), again, err, body.GetDecision(), body.GetFacts())
		}
	})
	for _, reason := range []writv1.Reason{
		writv1.Reason_REASON_GRANTED, writv1.Reason_REASON_BUDGET_EXHAUSTED, writv1.Reason_REASON_APPROVAL_REQUIRED, writv1.Reason_REASON_GRANT_STOPPED,
	} {
		if came[reason] == 0 {
			t.Errorf("no decision was for %s: %v", reason, came)
		}
	}
	s.sameAsFolded()
}
