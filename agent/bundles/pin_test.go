// SPDX-License-Identifier: Apache-2.0

package bundles_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/writ-dev/writ/agent/bundles"
)

func digestOf(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }

func TestADefinitionHasTheDigestOfItsCanonicalForm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ definition, canonical string }{
		"keys are sorted and spaces go": {
			`{ "name" : "x", "inputSchema": {"type": "object", "a": [1, 2]}, "description":"d" }`,
			`{"description":"d","inputSchema":{"a":[1,2],"type":"object"},"name":"x"}`,
		},
		"what is not covered is left out": {
			`{"name":"x","title":"T","annotations":{"readOnlyHint":true},"_meta":{"a":1}}`,
			`{"name":"x"}`,
		},
		"an output schema is covered": {
			`{"name":"x","outputSchema":{"b":null,"a":true}}`,
			`{"name":"x","outputSchema":{"a":true,"b":null}}`,
		},
		"numbers have one form": {
			`{"name":"x","inputSchema":{"a":1.0,"b":1e2,"c":-0,"d":0.10,"e":1e21,"f":9007199254740991}}`,
			`{"inputSchema":{"a":1,"b":100,"c":0,"d":0.1,"e":1e+21,"f":9007199254740991},"name":"x"}`,
		},
		"escapes have one form": {
			`{"name":"\u0078","description":"\u00e9\/\u000a\u001f\""}`,
			`{"description":"é/\n\u001f\"","name":"x"}`,
		},
		"keys are sorted by code point": {
			`{"name":"x","inputSchema":{"\ud83d\ude00":1,"\uff01":2}}`,
			`{"inputSchema":{"！":2,"😀":1},"name":"x"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := bundles.DefinitionDigest([]byte(c.definition))
			if err != nil || got != digestOf(c.canonical) {
				t.Errorf("DefinitionDigest(%s) = %s, %v; want that of %s", c.definition, got, err, c.canonical)
			}
		})
	}
}

func TestADefinitionThatCanBeReadTwoWaysHasNoDigest(t *testing.T) {
	t.Parallel()
	for name, definition := range map[string]string{
		"no object":                     `["x"]`,
		"no name":                       `{"description":"d"}`,
		"an empty name":                 `{"name":""}`,
		"a name that is a number":       `{"name":7}`,
		"a key twice":                   `{"name":"x","name":"y"}`,
		"a key twice, deep":             `{"name":"x","inputSchema":{"a":{"b":1,"b":2}}}`,
		"something after it":            `{"name":"x"}{}`,
		"truncated":                     `{"name":"x"`,
		"too many digits for a double":  `{"name":"x","inputSchema":9007199254740993}`,
		"too many digits of a fraction": `{"name":"x","inputSchema":0.12345678901234567890123}`,
		"a number that overflows":       `{"name":"x","inputSchema":1e400}`,
		"a number that underflows":      `{"name":"x","inputSchema":1e-400}`,
		"an exponent to fill memory":    `{"name":"x","inputSchema":1e999999999999}`,
		"too deep":                      `{"name":"x","inputSchema":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
		"too large":                     `{"name":"x","description":"` + strings.Repeat("a", 1<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := bundles.DefinitionDigest([]byte(definition)); err == nil {
				t.Errorf("DefinitionDigest gave %s, want an error", got)
			}
		})
	}
}

// The definitions in testdata/git are as mcp-server-git 2026.10.19 lists them;
// the example of a refund desk pins their digests.
func TestTheExamplePinsWhatTheServerLists(t *testing.T) {
	t.Parallel()
	bundle, err := bundles.LoadDir(t.Context(), examples[0], bundles.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for tool, file := range map[string]string{"git.status": "testdata/git/git_status.json", "git.log": "testdata/git/git_log.json"} {
		definition, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := bundles.DefinitionDigest(definition)
		if want := bundle.Tool(tool).Options.GetMcp().GetDefinitionDigest(); err != nil || got != want {
			t.Errorf("%s: the digest is %s (%v), and the bundle pins %s", tool, got, err, want)
		}
	}
}

func FuzzDefinitionDigest(f *testing.F) {
	f.Add([]byte(`{"name":"x","inputSchema":{"a":[1.0,"\ud83d\ude00",null,true]}}`))
	f.Add([]byte(`{"name":"x","inputSchema":1e400}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		digest, err := bundles.DefinitionDigest(data)
		if err != nil {
			return
		}
		spaced := append(append([]byte(" \n"), data...), '\t')
		if again, err := bundles.DefinitionDigest(spaced); len(spaced) < 1<<20 && (err != nil || again != digest) {
			t.Errorf("spaces around %q change its digest: %s, %v", data, again, err)
		}
	})
}
