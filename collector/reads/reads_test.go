// SPDX-License-Identifier: Apache-2.0

package reads_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/reads"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestALogThatIsFullTakesNoReadAndVerifies(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "reads")
	log, err := reads.Open(reads.Options{Dir: dir, Origin: "example.org/collector/reads", MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	read, n := &writv1.ReadRecord{Reader: "spiffe://example.org/auditor", Method: "m", Request: strings.Repeat("x", 30<<10)}, 0
	for ; err == nil && n < 1000; n++ {
		err = log.Add(t.Context(), read)
	}
	if !errors.Is(err, ledger.ErrFull) || n < 10 {
		t.Errorf("after %d reads Add = %v, want %v", n, err, ledger.ErrFull)
	}
	_ = log.Close() // its end has no room either
	key, err := ledgerKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	report, err := ledger.Verify(dir, key)
	if err != nil || report.Fault != nil || report.Size < uint64(n) {
		t.Errorf("Verify = %+v, %v, want the %d reads", report, err, n-1)
	}
}

func TestALogGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "reads")
	for range 2 {
		log, err := reads.Open(reads.Options{Dir: dir, Origin: "example.org/collector/reads"})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(log.Add(t.Context(), &writv1.ReadRecord{Method: "m"}), log.Close()); err != nil {
			t.Fatal(err)
		}
	}
	key, err := ledgerKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	report, err := ledger.Verify(dir, key)
	if err != nil || report.Fault != nil || report.Size != 6 || report.Epochs != 2 || !report.Ended {
		t.Errorf("Verify = %+v, %v, want two epochs of a start, a read and an end", report, err)
	}
}

func ledgerKey(dir string) (note.Verifier, error) {
	text, err := os.ReadFile(filepath.Join(dir, "log.vkey"))
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(strings.TrimSpace(string(text)))
}

func BenchmarkAdd(b *testing.B) {
	log, err := reads.Open(reads.Options{Dir: filepath.Join(b.TempDir(), "reads"), Origin: "example.org/collector/reads"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	read := &writv1.ReadRecord{
		Reader: "spiffe://example.org/auditor", Tenants: []string{"acme"}, Method: "/writ.v1.RecordService/ListRecords",
		Request: `{"filter":{"tenant":"acme","expression":"check:small"},"page_size":100}`,
	}
	for b.Loop() {
		if err := log.Add(b.Context(), read); err != nil {
			b.Fatal(err)
		}
	}
}
