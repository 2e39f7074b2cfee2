// SPDX-License-Identifier: Apache-2.0

package wire_test

import "testing"

func BenchmarkDecode(b *testing.B) {
	b.Run("mcp", func(b *testing.B) {
		route, request := mcpRoute(), post(modernCall, modern...)
		b.ReportAllocs()
		for b.Loop() {
			if call := route.Decode(request); call.Refusal != nil {
				b.Fatal(call.Refusal)
			}
		}
	})
	b.Run("http", func(b *testing.B) {
		route, request := shopRoute(b), order("/v1/shops/s1/orders", `{"item":"x"}`)
		b.ReportAllocs()
		for b.Loop() {
			if call := route.Decode(request); call.Refusal != nil {
				b.Fatal(call.Refusal)
			}
		}
	})
}
