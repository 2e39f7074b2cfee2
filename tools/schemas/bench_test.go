// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/writ-dev/writ/tools/schemas"
)

// arguments are a call of some 640 bytes.
const arguments = `{"tenant":"north","items":[{"sku":"tea-green-250","count":2,"price_minor":799},{"sku":"tea-black-500","count":1,"price_minor":1299,` +
	`"parts":[{"sku":"tin","count":1,"price_minor":200}]},{"sku":"cup-white","count":6,"price_minor":450},{"sku":"pot-iron","count":1,"price_minor":8900}],` +
	`"email":"somebody@customer.example","codes":["A-2291-33","B-1180-92"],"due":"2026-03-01T12:00:00Z",` +
	`"people":{"sender":{"name":"Ada Example","age":36,"desk":"d-17"},"receiver":{"name":"Grace Example","age":41,"desk":"d-18"}},` +
	`"account":"acc-99120-x","labels":{"channel":"chat","campaign":"spring-2026"},"speed":"SPEED_FAST"}`

func BenchmarkRead(b *testing.B) {
	m := typeOf(b, "kinds.v1.OrderRequest")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Read([]byte(arguments), nil, schemas.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadByProtojson(b *testing.B) {
	m := typeOf(b, "kinds.v1.OrderRequest")
	b.ReportAllocs()
	for b.Loop() {
		if err := protojson.Unmarshal([]byte(arguments), dynamicpb.NewMessage(m.Descriptor())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	m := typeOf(b, "kinds.v1.OrderRequest")
	message := read(b, m, arguments)
	b.ReportAllocs()
	for b.Loop() {
		if broken := m.Validate(message); broken != nil {
			b.Fatal(broken)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	m := typeOf(b, "kinds.v1.OrderRequest")
	message := read(b, m, arguments)
	out := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		out = m.Append(out[:0], message)
	}
}

func BenchmarkAppendPublic(b *testing.B) {
	m := typeOf(b, "kinds.v1.OrderRequest")
	message := read(b, m, arguments)
	out := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := m.AppendPublic(out[:0], message); err != nil {
			b.Fatal(err)
		}
	}
}
