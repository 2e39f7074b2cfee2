// SPDX-License-Identifier: Apache-2.0

package query

import (
	"bytes"
	"testing"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// TestALedgerLargerThanItsWindowIsPaged is a white box: a window that is as small as the
// test wants it.
func TestALedgerLargerThanItsWindowIsPaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: "example.org/agent/desk"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(nil) })
	const n = 50
	for i := range n {
		entry := ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_DECISION, Body: &writv1.DecisionRecord{Arguments: bytes.Repeat([]byte("x"), 100+i)}}
		if _, err := l.Append(t.Context(), entry, writv1.Durability_DURABILITY_PROCESS); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := FromLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []int{300, 1000, 5000, windowBytes} {
		for _, size := range []int32{1, 3, 7, 100} {
			reader.keep = keep
			request := &writv1.ListRecordsRequest{PageSize: size}
			next := uint64(n)
			for range n + 1 {
				page, err := reader.List(t.Context(), request)
				if err != nil {
					t.Fatal(err)
				}
				for _, stored := range page.GetRecords() {
					next--
					if got := viewOf(stored).record.GetIndex(); got != next {
						t.Fatalf("keeping %d, pages of %d: record %d, want %d", keep, size, got, next)
					}
				}
				if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
					break
				}
			}
			if next != 0 {
				t.Errorf("keeping %d, pages of %d: they end at %d", keep, size, next)
			}
		}
	}
}
