// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writ-dev/writ/ledger"
)

func TestALedgerWhoseFilesAreRemovedIsUnavailable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, options(dir))
	if _, err := l.Append(t.Context(), decision(1), process); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.dlog"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments = %v, %v", segments, err)
	}
	if err := os.Remove(segments[0]); err != nil {
		t.Fatal(err)
	}
	// It is noticed at the next sync of what was written.
	for n, began := 2, time.Now(); ; n++ {
		_, err := l.Append(t.Context(), decision(n), process)
		if errors.Is(err, ledger.ErrUnavailable) {
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d records were answered for without a file: %v", n, err)
		}
	}
}
