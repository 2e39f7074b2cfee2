// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

func TestAnExecutorThatPanicsCostsOneCall(t *testing.T) {
	t.Parallel()
	causes := map[string]func(x tools.Execution){
		"with the call's own value": func(x tools.Execution) { panic(fmt.Errorf("cannot make %s", x.JSON)) },
		"by a fault":                func(x tools.Execution) { _ = x.JSON[len(x.JSON)] },
	}
	for name, cause := range causes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fail := true
			w := openWorkshop(t, workshopOptions{executions: 1, craft: func(ctx context.Context, x tools.Execution) (*tools.Result, error) {
				if fail {
					cause(x)
				}
				return made(ctx, x)
			}})
			first := w.allow(request("workshop.make", "hush-hush"))
			execution := first.Run(t.Context(), nil)
			if execution.State != writv1.OutcomeState_OUTCOME_STATE_FAILED || execution.Reason != writv1.Reason_REASON_AGENT_INTERNAL {
				t.Errorf("the execution ended as %v, %v", execution.State, execution.Reason)
			}
			if err := first.Finish(execution.Outcome()); err != nil {
				t.Fatal(err)
			}
			if got := w.entries()[1].outcome; got.GetState() != writv1.OutcomeState_OUTCOME_STATE_FAILED {
				t.Errorf("recorded %v", got)
			}
			fail = false
			second := w.allow(request("workshop.make", "spoon"))
			if execution := second.Run(t.Context(), nil); execution.State != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
				t.Errorf("the next call ended as %v, %s", execution.State, execution.Message)
			}
			if log := w.log.String(); strings.Contains(log, "hush-hush") || !strings.Contains(log, first.ID()) {
				t.Errorf("the log should name the decision and nothing of the call:\n%s", log)
			}
		})
	}
}
