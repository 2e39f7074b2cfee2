// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestARecordHoldsWhatIsSealedWithItsOwnCommitments(t *testing.T) {
	t.Parallel()
	l, _, err := ledger.Open(ledger.Options{Dir: filepath.Join(t.TempDir(), "ledger"), Origin: "example.org/agent/sealed"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(nil) //nolint:errcheck // nothing is written any more
	entry := func(digest []byte, sealed *writv1.SealedOriginals) ledger.Entry {
		return ledger.Entry{
			Kind: writv1.RecordKind_RECORD_KIND_DECISION, DecisionID: make([]byte, 16), Body: &writv1.DecisionRecord{},
			Sensitive: []ledger.Sensitive{{Path: "arguments.a", Value: []byte("1"), Digest: digest}}, Sealed: sealed,
		}
	}
	digest := make([]byte, 32)
	at, err := l.Append(t.Context(), entry(digest, &writv1.SealedOriginals{Day: "2026-11-27", Ciphertext: []byte{1}}), writv1.Durability_DURABILITY_PROCESS)
	if err != nil {
		t.Fatal(err)
	}
	// What was sealed in one record is not taken over by the next.
	if _, err := l.Append(t.Context(), entry(nil, nil), writv1.Durability_DURABILITY_PROCESS); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), entry(digest[:31], nil), writv1.Durability_DURABILITY_PROCESS); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a commitment of 31 bytes: %v", err)
	}
	reader, err := l.Reader(at.Index)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := reader.Next(t.Context(), 2, 1<<20)
	if err != nil || len(bundle.Records) != 2 {
		t.Fatal(bundle, err)
	}
	var records []*writv1.Record
	for i, raw := range bundle.Records {
		record, err := ledger.CheckRecord(raw, ledger.LogID(l.Origin()), at.Index+uint64(i)) //nolint:gosec // not negative
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, record)
	}
	if string(records[0].GetCommitments()[0].GetDigest()) != string(digest) || records[0].GetSealed().GetDay() != "2026-11-27" {
		t.Errorf("the record is %v", records[0])
	}
	if string(records[1].GetCommitments()[0].GetDigest()) == string(digest) || records[1].GetSealed() != nil {
		t.Errorf("the next record is %v", records[1])
	}
	for name, sealed := range map[string]*writv1.SealedOriginals{
		"a long day":        {Day: "2026-11-277"},
		"a long key id":     {KeyId: make([]byte, 33)},
		"a long key":        {WrappedKey: make([]byte, 129)},
		"a long ciphertext": {Ciphertext: make([]byte, 20481)},
	} {
		records[0].Sealed = sealed
		raw, err := canonical.Marshal(records[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ledger.CheckRecord(raw, ledger.LogID(l.Origin()), at.Index); !errors.Is(err, ledger.ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
