// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-dev/writ/tools/schemas"
)

func TestWhatWasLeftOutIsPutBackWhereItWas(t *testing.T) {
	t.Parallel()
	request := typeOf(t, "kinds.v1.OrderRequest")
	rapid.Check(t, func(t *rapid.T) {
		message := drawn(t, request.Descriptor(), 3)
		whole := request.Append(nil, message)
		public, removed, err := request.AppendPublic(nil, message)
		if err != nil {
			t.Fatal(err)
		}
		values := make(map[string][]byte)
		for _, r := range removed {
			values[r.Path] = r.Value
		}
		back, placed, err := request.Restore(public, values, schemas.Limits{})
		if err != nil || placed != len(removed) || !bytes.Equal(back, whole) {
			t.Fatalf("%d of %d values back in\n%s\nwant\n%s\n%v", placed, len(removed), back, whole, err)
		}
	})
}

func TestAValueWithoutAPlaceIsNotPutBack(t *testing.T) {
	t.Parallel()
	request := typeOf(t, "kinds.v1.OrderRequest")
	values := map[string][]byte{"email": []byte(`"a@b.example"`), "iban": []byte("1"), `people["cook"].name`: []byte(`"x"`), "tenant": []byte(`"south"`)}
	back, placed, err := request.Restore([]byte(`{"tenant":"north"}`), values, schemas.Limits{})
	if want := `{"tenant":"north","email":"a@b.example"}`; err != nil || placed != 1 || string(back) != want {
		t.Errorf("%d values in %s, %v, want 1 in %s", placed, back, err, want)
	}
	if _, _, err := request.Restore([]byte(`{"unknown":1}`), values, schemas.Limits{}); err == nil {
		t.Error("a text of another schema is restored")
	}
}
