// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const fuzzedContract = `contracts:
  - name: fuzz
    intents: [{name: buy}]
    order: |
      %s
    tools:
      - tool: shop.order
        at_least: %d
        at_most: %d
        condition: |
          %s
        on_failure: ON_FAILURE_DENY
        message: no
    success: |
      %s
    unacceptable:
      - name: bad
        condition: |
          %s
        message: no
`

const fuzzedScenario = `principal: {user: ann, tenant: acme}
scenarios:
  - name: a run
    steps:
      - begin_workflow: {workflow: fuzz}
      - call: {tool: shop.order, args: {item: tea, count: 2, notes: [a, b]}, result: {id: o1}}
      - call: {tool: shop.order, args: {item: "", count: -9223372036854775808}, result: {id: o2}}
      - advance: 60s
      - end_workflow: {}
`

// FuzzLoadContracts loads a bundle around a hostile contract: loading ends in a bundle or
// in problems, and a bundle decides the same in a run each time, without a panic.
func FuzzLoadContracts(f *testing.F) {
	f.Add("shop.order+", "args.count < 3", `run.called("shop.order").count() == 1`, "false", uint32(0), uint32(1))
	f.Add("shop.order?", `run.called("shop.order").with("args.item", args.item).count() == 0`, `run.called("shop.order").number("args.count") > 1.0`, "true", uint32(1), uint32(2))
	f.Add("(shop.order | shop.order -> shop.order)*", `run.intent() == "buy"`, `run.called("shop.order").text("result.id") == "o1"`, "1/0 == 1", uint32(2), uint32(1))
	f.Add("shop.order{3}", "inputs.x == 1", "output.y", `session.read_untrusted()`, uint32(0), uint32(10000))
	f.Add("((((((((shop.order))))))))", "args.notes.all(a, args.notes.exists(b, a.contains(b)))", "now > now", "tool == ''", uint32(9), uint32(9))
	f.Fuzz(func(t *testing.T, order, condition, success, unacceptable string, least, most uint32) {
		in := func(text string, indent int) string {
			return strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", indent))
		}
		text := fmt.Sprintf(fuzzedContract, in(order, 6), least, most, in(condition, 10), in(success, 6), in(unacceptable, 10))
		dir := write(t, []txtar.File{
			{Name: "contracts/fuzz.yaml", Data: []byte(text)}, {Name: "scenarios/fuzz.yaml", Data: []byte(fuzzedScenario)},
		})
		loaded, err := bundles.Load(t.Context(), dir, bundles.Options{})
		var problems bundles.Errors
		if (loaded == nil) == (err == nil) || err != nil && !errors.As(err, &problems) {
			t.Errorf("%s: bundle %v, error %v", text, loaded, err)
		}
		if err != nil {
			return
		}
		play := func() string {
			played := bundles.PlayAll(loaded.Bundle, loaded.Plays, writv1.Human_HUMAN_UNSPECIFIED, time.Now)
			report, out := &bundles.Report{}, &strings.Builder{}
			for i := range played {
				played[i].Duration = 0
			}
			report.AddPlays(played)
			if err := report.WriteJSON(out); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		if first, second := play(), play(); first != second {
			t.Errorf("%s: the same run comes out otherwise:\n%s\n%s", text, first, second)
		}
	})
}
