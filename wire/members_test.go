// SPDX-License-Identifier: Apache-2.0

package wire

// White box: the scan of members is held against jsontext's reader, and nothing
// outside the package sees it.

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

type pair struct{ Name, Value string }

// decoded reads members by jsontext; ok is false for what is no object.
func decoded(text []byte) (members []pair, ok bool) {
	decoder := jsontext.NewDecoder(bytes.NewReader(text))
	if token, err := decoder.ReadToken(); err != nil || token.Kind() != '{' {
		return nil, false
	}
	for decoder.PeekKind() == '"' {
		token, err := decoder.ReadToken()
		if err != nil {
			return nil, false
		}
		name := token.String()
		value, err := decoder.ReadValue()
		if err != nil {
			return nil, false
		}
		members = append(members, pair{name, string(value)})
	}
	if _, err := decoder.ReadToken(); err != nil {
		return nil, false
	}
	return members, atEnd(decoder) == nil
}

func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"b":{"c":[1,"]",{}]}, "d" : "x\"y}" }`, `{"\u0061":null}`, " {\n}\r\n", `{"a":-1.5e3}`, `[]`, `{`, `{"a"`, `{"a":}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got []pair
		err := eachMember(text, func(name []byte, value jsontext.Value) {
			got = append(got, pair{string(name), string(value)})
		})
		want, ok := decoded(text)
		if !ok {
			return // schemas.Check has refused it; the scan must only not panic
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-jsontext +scan):\n%s", text, err, diff)
		}
	})
}
