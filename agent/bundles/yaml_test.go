// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestArgumentsInYAMLAreTheJSONTheyStandFor(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]string{
		`{a: 1, b: x}`:                      `{"a":1,"b":"x"}`,
		`{n: 12345678901234567890123}`:      `{"n":12345678901234567890123}`,
		`{n: 1.50, e: 1e3, neg: -7}`:        `{"n":1.50,"e":1e3,"neg":-7}`,
		`{t: true, f: false, z: null}`:      `{"t":true,"f":false,"z":null}`,
		`{"quoted": "12", single: 'true'}`:  `{"quoted":"12","single":"true"}`,
		`{date: 2026-01-01, s: "a\nb\"c"}`:  `{"date":"2026-01-01","s":"a\nb\"c"}`,
		`[1, [2, {}], []]`:                  `[1,[2,{}],[]]`,
		`!json '{"a": 1, "a": 2'`:           `{"a": 1, "a": 2`,
		`{yes: no, on: off, octal: "0o17"}`: `{"yes":"no","on":"off","octal":"0o17"}`,
	} {
		t.Run(yaml, func(t *testing.T) {
			t.Parallel()
			envelope := &writv1.Envelope{}
			err := bundles.ReadYAML("x.yaml", []byte("tool_call: {name: a.b, args: "+yaml+"}\n"), envelope)
			if got := string(envelope.GetToolCall().GetArgs().GetText()); err != nil || got != want {
				t.Errorf("args are %s (%v), want %s", got, err, want)
			}
		})
	}
	for _, yaml := range []string{`{n: 0x10}`, `{n: 1_000}`, `{n: .5}`, `{n: .inf}`, `{n: 0o17}`, `{n: +1}`, `{b: !!binary aGk=}`, `{a: 1, a: 2}`, `{a: &x 1, b: *x}`, `{? [1] : 2}`} {
		t.Run("refused: "+yaml, func(t *testing.T) {
			t.Parallel()
			envelope := &writv1.Envelope{}
			if err := bundles.ReadYAML("x.yaml", []byte("tool_call: {name: a.b, args: "+yaml+"}\n"), envelope); err == nil {
				t.Errorf("args are %s, want an error", envelope.GetToolCall().GetArgs().GetText())
			}
		})
	}
}

func FuzzReadGrants(f *testing.F) {
	for _, pattern := range []string{"../../examples/*/bundle/grants/*.yaml", "../policy/testdata/bundles/*/grants/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("grants: [{name: a, effect: GRANT_EFFECT_ALLOW, tools: ['*'], condition: |\n  true}]"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("grants:\n- ? {}\n  : {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set := &writv1.GrantSet{}
		err := bundles.ReadYAML("grants/fuzz.yaml", data, set)
		if err == nil {
			if broken := protovalidate.Validate(set); broken != nil {
				t.Errorf("%q was read and breaks its rules: %v", data, broken)
			}
			return
		}
		var problems bundles.Errors
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("%q gave %v, want problems", data, err)
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, problem := range problems {
			if problem.Line < 0 || problem.Line > lines+1 || problem.Message == "" {
				t.Errorf("%q has a problem at no place: %+v", data, problem)
			}
		}
	})
}

// FuzzLoadGrants loads a whole bundle around hostile grants: whatever the file
// and its conditions hold, loading ends in a bundle or in problems.
func FuzzLoadGrants(f *testing.F) {
	f.Add("args.count < 3 && args.item == \"tea\"")
	f.Add("args.notes.all(a, args.notes.exists(b, a.contains(b)))")
	f.Add("((((((((((1 == 1))))))))))")
	f.Add("now.getHours(args.item) < 3")
	f.Add("args.labels.map(k, k) == [claimed.intent]\n && tool.matches('(a+)+$')")
	f.Fuzz(func(t *testing.T, condition string) {
		quoted := "grants:\n  - name: fuzz\n    effect: GRANT_EFFECT_DENY\n    tools: [shop.order]\n    condition: |\n      " + strings.ReplaceAll(condition, "\n", "\n      ") + "\n"
		dir := write(t, []txtar.File{{Name: "grants/fuzz.yaml", Data: []byte(quoted)}})
		bundle, err := bundles.LoadDir(t.Context(), dir, bundles.Options{})
		var problems bundles.Errors
		if (bundle == nil) == (err == nil) || err != nil && !errors.As(err, &problems) {
			t.Errorf("condition %q: bundle %v, error %v", condition, bundle, err)
		}
	})
}
