// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc/codes"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// exported are the indexes of an export's records, each of which must be proven by the
// key that the ledger has.
func exported(ctx context.Context, t testing.TB, r query.Reader, key string, request *writv1.ExportRecordsRequest) ([]uint64, *writv1.ExportedLedger, error) {
	t.Helper()
	verifier, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	out := []uint64{}
	var of *writv1.ExportedLedger
	var head ledger.Head
	for item, err := range r.Export(ctx, request) {
		if err != nil {
			return out, of, err
		}
		if item.GetLedger() != nil {
			if of != nil {
				t.Error("a ledger comes twice")
			}
			of = item.GetLedger()
			if of.GetVerifierKey() != key {
				t.Errorf("the key is %s, want %s", of.GetVerifierKey(), key)
			}
			if head, err = ledger.OpenSole(of.GetHead(), verifier); err != nil {
				t.Fatal(err)
			}
			continue
		}
		raw := item.GetRecord().GetRecord()
		record := recordIn(t, &writv1.StoredRecord{Record: raw})
		if err := (ledger.Inclusion{Index: record.GetIndex(), Path: item.GetRecord().GetPath()}).Verify(raw, head); err != nil {
			t.Errorf("record %d: %v", record.GetIndex(), err)
		}
		out = append(out, record.GetIndex())
	}
	return out, of, nil
}

func TestEveryReaderExportsWhatItListsWithProofs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	for name, reader := range d.readers(t) {
		for what, filter := range map[string]*writv1.RecordFilter{
			"everything": nil, "a tenant": {Tenant: "acme"}, "a tool": {Tool: "mail.send"}, "a user": {Principal: "alice"},
			"a verdict": {Verdict: writv1.Verdict_VERDICT_DENY}, "a kind": {Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_OUTCOME}},
			"a ledger": {Origin: d.ledger.Origin()}, "another ledger": {Origin: "elsewhere"}, "nothing": {Tool: "none"},
		} {
			want := indexes(t, records(t.Context(), t, reader, filter, 0))
			for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
				want[i], want[j] = want[j], want[i]
			}
			got, of, err := exported(t.Context(), t, reader, d.ledger.VerifierKey(), &writv1.ExportRecordsRequest{Filter: filter})
			if err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s: exported otherwise than listed (-listed +exported):\n%s", name, what, diff)
			}
			if (of == nil) != (len(want) == 0) {
				t.Errorf("%s, %s: ledger %v of %d records", name, what, of, len(want))
			}
		}
	}
}

func TestAnExportShowsThatItsLedgerGoesOnFromAnOlderHead(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()[:5]...)
	held := d.held
	d.write(t, aDay()[5:]...)
	older := ledger.Head{Origin: held.Origin, Size: held.Size, Root: [32]byte(held.Root)}
	for name, reader := range d.readers(t) {
		ask := func(size uint64) *writv1.ExportedLedger {
			_, of, err := exported(t.Context(), t, reader, d.ledger.VerifierKey(), &writv1.ExportRecordsRequest{
				OlderHeads: []*writv1.OlderHead{{Origin: "elsewhere", Size: 1}, {Origin: held.Origin, Size: size}},
			})
			if err != nil {
				t.Fatal(err)
			}
			return of
		}
		verifier, err := note.NewVerifier(d.ledger.VerifierKey())
		if err != nil {
			t.Fatal(err)
		}
		of := ask(held.Size)
		head, err := ledger.OpenSole(of.GetHead(), verifier)
		if err != nil {
			t.Fatal(err)
		}
		if of.GetOlderSize() != held.Size {
			t.Errorf("%s: from size %d, want %d", name, of.GetOlderSize(), held.Size)
		}
		if err := ledger.VerifyConsistency(older, head, of.GetConsistency()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		forked := older
		forked.Root[0]++
		if err := ledger.VerifyConsistency(forked, head, of.GetConsistency()); !errors.Is(err, ledger.ErrMismatch) {
			t.Errorf("%s: another history: %v", name, err)
		}
		if of := ask(99); of.OlderSize != nil {
			t.Errorf("%s: a head newer than the ledger: %v", name, of.OlderSize)
		}
	}
}

func TestALedgerThatIsNotWholeIsNotExported(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	names, err := filepath.Glob(filepath.Join(d.ledgerDir, "*.dlog"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	segment, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(segment, []byte("books.read"))
	segment[at]++
	dir := t.TempDir()
	for name, content := range map[string][]byte{filepath.Base(names[0]): segment, "log.vkey": []byte(d.ledger.VerifierKey())} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := query.FromLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := exported(t.Context(), t, reader, d.ledger.VerifierKey(), &writv1.ExportRecordsRequest{})
	var fault *ledger.Fault
	if !errors.As(err, &fault) || fault.Index != 10 || len(got) != 0 {
		t.Errorf("exported %v, %v, want a fault of record 10 and nothing", got, err)
	}
}

// tampered is a store in whose records something was changed.
type tampered struct{ query.Source }

func (s tampered) List(ctx context.Context, sel store.Selection) ([]store.Stored, error) {
	rows, err := s.Source.List(ctx, sel)
	for i := range rows {
		rows[i].Raw = bytes.Replace(rows[i].Raw, []byte("books.read"), []byte("books.wipe"), 1)
	}
	return rows, err
}

func TestAStoreThatIsNotWholeIsNotExported(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	got, _, err := exported(t.Context(), t, query.FromStore(tampered{d.store}), d.ledger.VerifierKey(), nil)
	if !errors.Is(err, ledger.ErrHead) || len(got) != 0 || !strings.Contains(err.Error(), d.ledger.Origin()) {
		t.Errorf("exported %v, %v, want an error that names the ledger and nothing", got, err)
	}
}

func TestAnExportIsOfWhatWasThereWhenItBegan(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	for name, reader := range d.readers(t) {
		size, n := d.held.Size, uint64(0)
		for item, err := range reader.Export(t.Context(), nil) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if item.GetLedger() != nil {
				d.write(t, aDay()...) // meanwhile
				continue
			}
			n++
		}
		if n != size {
			t.Errorf("%s: %d records, want %d", name, n, size)
		}
	}
}

func TestAnExportEndsWhenItsCallerHasEnough(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	for name, reader := range d.readers(t) {
		n := 0
		for range reader.Export(t.Context(), nil) {
			if n++; n == 3 {
				break
			}
		}
		if n != 3 {
			t.Errorf("%s: %d given out", name, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range reader.Export(ctx, nil) {
			if err == nil {
				t.Errorf("%s: something is given out after the end", name)
			}
		}
		for _, err := range reader.Export(t.Context(), &writv1.ExportRecordsRequest{Filter: &writv1.RecordFilter{Tool: strings.Repeat("x", 129)}}) {
			if !errors.Is(err, query.ErrInvalid) {
				t.Errorf("%s: %v, want %v", name, err, query.ErrInvalid)
			}
		}
	}
}

func TestAServerHasRoomForTwoExports(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var many []ledger.Entry
	for i := range 60 {
		many = append(many, ledger.Entry{
			Kind: writv1.RecordKind_RECORD_KIND_DECISION, DecisionID: id(byte(i)),
			Body: &writv1.DecisionRecord{Tool: fmt.Sprint(i), Arguments: bytes.Repeat([]byte("x"), 60_000)},
		})
	}
	d.write(t, many...)
	client := serve(t, query.NewServer(query.Options{Store: d.store}))
	begin := func() error {
		in, err := client.ExportRecords(t.Context(), &writv1.ExportRecordsRequest{})
		if err == nil {
			_, err = in.Recv() // the ledger; more is held back by the stream's window
		}
		return err
	}
	for range 2 {
		if err := begin(); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range query.FromService(client).Export(t.Context(), nil) {
		var answer *query.ServiceError
		if !errors.Is(err, query.ErrTooMany) || !errors.As(err, &answer) || answer.Code != codes.ResourceExhausted {
			t.Errorf("a third export: %v, want %v", err, query.ErrTooMany)
		}
	}
}
