// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func recordIn(t testing.TB, stored *writv1.StoredRecord) *writv1.Record {
	t.Helper()
	r := &writv1.Record{}
	if err := canonical.Unmarshal(stored.GetRecord(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// at is the time of the record with an index.
func at(index int) *timestamppb.Timestamp {
	return timestamppb.New(morning.Add(time.Duration(index) * time.Second))
}

func TestAFilterFindsTheSameRecordsInEveryReader(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	readers := d.readers(t)
	for name, test := range map[string]struct {
		filter *writv1.RecordFilter
		want   []uint64
	}{
		"no filter":                             {nil, []uint64{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		"an empty filter":                       {&writv1.RecordFilter{}, []uint64{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		"a tool, its outcomes included":         {&writv1.RecordFilter{Tool: "books.refund"}, []uint64{11, 4, 3, 2}},
		"a tool nobody called":                  {&writv1.RecordFilter{Tool: "books"}, []uint64{}},
		"a verdict, its outcomes included":      {&writv1.RecordFilter{Verdict: writv1.Verdict_VERDICT_ALLOW}, []uint64{11, 8, 7, 4, 2}},
		"a verdict without outcomes":            {&writv1.RecordFilter{Verdict: writv1.Verdict_VERDICT_NEEDS_APPROVAL}, []uint64{5}},
		"a user":                                {&writv1.RecordFilter{Principal: "alice"}, []uint64{11, 8, 7, 4, 2}},
		"a workload":                            {&writv1.RecordFilter{Principal: "spiffe://w/2"}, []uint64{8, 7, 5}},
		"a tenant":                              {&writv1.RecordFilter{Tenant: "globex"}, []uint64{8, 7, 5}},
		"one kind":                              {&writv1.RecordFilter{Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_HEARTBEAT}}, []uint64{6}},
		"kinds, one twice":                      {&writv1.RecordFilter{Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_START, writv1.RecordKind_RECORD_KIND_BUNDLE, writv1.RecordKind_RECORD_KIND_START}}, []uint64{1, 0}},
		"from a time on":                        {&writv1.RecordFilter{StartTime: at(9)}, []uint64{11, 10, 9}},
		"before a time":                         {&writv1.RecordFilter{EndTime: at(2)}, []uint64{1, 0}},
		"between two times":                     {&writv1.RecordFilter{StartTime: at(4), EndTime: at(6)}, []uint64{5, 4}},
		"no time at all":                        {&writv1.RecordFilter{StartTime: at(6), EndTime: at(4)}, []uint64{}},
		"from before there were clocks":         {&writv1.RecordFilter{StartTime: &timestamppb.Timestamp{Seconds: -62135596800}, EndTime: at(1)}, []uint64{0}},
		"until the end of time":                 {&writv1.RecordFilter{StartTime: at(11), EndTime: &timestamppb.Timestamp{Seconds: 253402300799}}, []uint64{11}},
		"its origin":                            {&writv1.RecordFilter{Origin: d.ledger.Origin(), Tenant: "globex"}, []uint64{8, 7, 5}},
		"another origin":                        {&writv1.RecordFilter{Origin: "example.org/agent/desk"}, []uint64{}},
		"tool, verdict and principal at once":   {&writv1.RecordFilter{Tool: "books.refund", Verdict: writv1.Verdict_VERDICT_DENY, Principal: "bob"}, []uint64{3}},
		"tool and kind":                         {&writv1.RecordFilter{Tool: "books.refund", Kinds: []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_OUTCOME}}, []uint64{11, 4}},
		"principal and tenant that do not meet": {&writv1.RecordFilter{Principal: "bob", Tenant: "globex"}, []uint64{}},
	} {
		for who, reader := range readers {
			t.Run(name+", from "+who, func(t *testing.T) {
				t.Parallel()
				for _, size := range []int32{0, 1, 3, 1000} {
					if diff := cmp.Diff(test.want, indexes(t, records(t.Context(), t, reader, test.filter, size))); diff != "" {
						t.Errorf("pages of %d (-want +got):\n%s", size, diff)
					}
				}
			})
		}
	}
}

func TestRecordsAreTheBytesOfTheLedgerInEveryReader(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	var first []*writv1.StoredRecord
	for who, reader := range d.readers(t) {
		got := records(t.Context(), t, reader, nil, 5)
		for _, r := range got {
			if _, err := ledger.CheckRecord(r.GetRecord(), ledger.LogID(r.GetOrigin()), recordIn(t, r).GetIndex()); err != nil {
				t.Errorf("%s: %v", who, err)
			}
			if at := r.GetReceiveTime(); at != nil && !at.AsTime().Equal(morning.Add(time.Hour)) {
				t.Errorf("%s: received at %v", who, at.AsTime())
			}
			r.ReceiveTime = nil // a ledger has none
		}
		if first == nil {
			first = got
		}
		if diff := cmp.Diff(first, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s differs:\n%s", who, diff)
		}
	}
}

func TestPagesGoOnWhileRecordsArrive(t *testing.T) {
	t.Parallel()
	for who := range newDesk(t).readers(t) {
		t.Run("from "+who, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.write(t, aDay()...)
			reader := d.readers(t)[who]
			filter := &writv1.RecordFilter{Tool: "books.refund"}
			request := &writv1.ListRecordsRequest{Filter: filter, PageSize: 1}
			got := []uint64{}
			for {
				page, err := reader.List(t.Context(), request)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, indexes(t, page.GetRecords())...)
				if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
					break
				}
				d.write(t, decision(2, "acme", "books.refund", "bob", "", writv1.Verdict_VERDICT_DENY), outcome(1, "acme"))
			}
			if diff := cmp.Diff([]uint64{11, 4, 3, 2}, got); diff != "" {
				t.Errorf("pages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPageIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	large := decision(1, "acme", "books.refund", "alice", "", writv1.Verdict_VERDICT_ALLOW)
	large.Body.(*writv1.DecisionRecord).Arguments = []byte(`"` + strings.Repeat("x", 60_000) + `"`)
	for range 120 {
		d.write(t, large)
	}
	for who, reader := range d.readers(t) {
		page, err := reader.List(t.Context(), &writv1.ListRecordsRequest{PageSize: 1000})
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		if n := len(page.GetRecords()); n < 30 || n > 60 || page.GetNextPageToken() == "" {
			t.Errorf("%s: a page of %d records of 60 kB, next %q", who, n, page.GetNextPageToken())
		}
		if n := len(records(t.Context(), t, reader, nil, 1000)); n != 120 {
			t.Errorf("%s: %d records in all, want 120", who, n)
		}
	}
}

func TestATokenIsForItsOwnPages(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	filter := &writv1.RecordFilter{Tenant: "acme"}
	readers := d.readers(t)
	tokens := map[string]string{}
	for who, reader := range readers {
		page, err := reader.List(t.Context(), &writv1.ListRecordsRequest{Filter: filter, PageSize: 2})
		if err != nil {
			t.Fatal(err)
		}
		tokens[who] = page.GetNextPageToken()
	}
	for who, reader := range readers {
		own := tokens[who]
		other := tokens["the store"]
		if other == own {
			other = tokens["the ledger's directory"]
		}
		bad := map[string]*writv1.ListRecordsRequest{
			"of another filter": {Filter: &writv1.RecordFilter{Tenant: "globex"}, PageToken: own},
			"of no filter":      {PageToken: own},
			"of another source": {Filter: filter, PageToken: other},
			"cut":               {Filter: filter, PageToken: own[:len(own)-1]},
			"longer":            {Filter: filter, PageToken: own + "A"},
			"oversized":         {Filter: filter, PageToken: strings.Repeat("A", 1<<16)},
			"that is no text":   {Filter: filter, PageToken: "\n" + own[1:]},
		}
		for i := range own {
			c := byte('A')
			if own[i] == c {
				c = 'B'
			}
			bad[fmt.Sprintf("tampered with at %d", i)] = &writv1.ListRecordsRequest{Filter: filter, PageToken: own[:i] + string(c) + own[i+1:]}
		}
		for name, request := range bad {
			if _, err := reader.List(t.Context(), request); !errors.Is(err, query.ErrInvalid) {
				t.Errorf("%s: a token %s: error = %v", who, name, err)
			}
		}
		if _, err := reader.List(t.Context(), &writv1.ListRecordsRequest{Filter: filter, PageToken: own, PageSize: 7}); err != nil {
			t.Errorf("%s: its own token, and another size: %v", who, err)
		}
	}
}

func TestWhatCannotBeAskedIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	client := serve(t, query.NewServer(query.Options{Store: d.store}))
	for name, request := range map[string]*writv1.ListRecordsRequest{
		"a page that is too large":   {PageSize: 1001},
		"a page of less than none":   {PageSize: -1},
		"a tool that is too long":    {Filter: &writv1.RecordFilter{Tool: strings.Repeat("x", 129)}},
		"a verdict there is not":     {Filter: &writv1.RecordFilter{Verdict: 9}},
		"too many kinds":             {Filter: &writv1.RecordFilter{Kinds: make([]writv1.RecordKind, 17)}},
		"a time that is none":        {Filter: &writv1.RecordFilter{StartTime: &timestamppb.Timestamp{Nanos: -1}}},
		"an end that is none":        {Filter: &writv1.RecordFilter{EndTime: &timestamppb.Timestamp{Seconds: 1 << 60}}},
		"a token that was not given": {PageToken: "x"},
	} {
		if _, err := client.ListRecords(t.Context(), request); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error = %v", name, err)
		}
		for who, reader := range d.readers(t) {
			if _, err := reader.List(t.Context(), request); !errors.Is(err, query.ErrInvalid) {
				t.Errorf("%s, from %s: error = %v", name, who, err)
			}
			if _, err := reader.Watch(t.Context(), request.GetFilter()); request.GetFilter() != nil && !errors.Is(err, query.ErrInvalid) {
				t.Errorf("%s, watched from %s: error = %v", name, who, err)
			}
		}
	}
}

func TestADecisionIsFoundWithWhatBelongsToIt(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	for who, reader := range d.readers(t) {
		for name, want := range map[string][]uint64{
			"00000000000000000000000000000004": {7, 8},
			"00000000000000000000000000000001": {2, 4, 10, 11},
			"00000000000000000000000000000009": {9},
		} {
			got, err := reader.Get(t.Context(), name)
			if diff := cmp.Diff(want, indexes(t, got)); err != nil || diff != "" {
				t.Errorf("%s, %s: %v (-want +got):\n%s", who, name, err, diff)
			}
		}
		for name, want := range map[string]error{
			"000000000000000000000000000000ff":   query.ErrNotFound,
			"":                                   query.ErrInvalid,
			"0000000000000000000000000000000":    query.ErrInvalid,
			"0000000000000000000000000000000A":   query.ErrInvalid,
			"00000000000000000000000000000001\n": query.ErrInvalid,
		} {
			if _, err := reader.Get(t.Context(), name); !errors.Is(err, want) {
				t.Errorf("%s, %q: error = %v, want %v", who, name, err, want)
			}
		}
	}
}

func TestMoreOfADecisionThanIsAnsweredIsSaid(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	entries := make([]ledger.Entry, 1001)
	for i := range entries {
		entries[i] = ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, DecisionID: id(1), Body: &writv1.OutcomeRecord{}}
	}
	for _, e := range entries {
		if err := d.ledger.AppendAsync(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	d.write(t, outcome(1, ""))
	for who, reader := range d.readers(t) {
		if _, err := reader.Get(t.Context(), "00000000000000000000000000000001"); !errors.Is(err, query.ErrTooMany) {
			t.Errorf("%s: error = %v", who, err)
		}
	}
}

func TestOfADamagedLedgerIsReadWhatIsWhole(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()...)
	name := filepath.Join(d.ledgerDir, "00000001-00000000000000000000.dlog")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(whole), "books.read")
	whole[i] ^= 1
	if err := os.WriteFile(name, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := query.FromLedger(d.ledgerDir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, indexes(t, records(t.Context(), t, reader, nil, 4))); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	var fault *ledger.Fault
	if err := reader.Incomplete(); !errors.As(err, &fault) || fault.Index != 10 {
		t.Errorf("incomplete = %v", err)
	}
	if _, err := reader.Watch(t.Context(), nil); !errors.As(err, &fault) {
		t.Errorf("a damaged ledger is watched: %v", err)
	}
}

func TestThePlaceOfTheRecordsIsNamedWhenThereAreNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := query.FromLedger(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a ledger that is not there: %v", err)
	}
	if _, err := query.FromStoreDir(dir).List(t.Context(), &writv1.ListRecordsRequest{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a store that is not there: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("looking made %v (%v)", entries, err)
	}
	for name, text := range map[string]string{"no key": "x", "a large file": strings.Repeat("x", 5000)} {
		if err := os.WriteFile(filepath.Join(dir, "log.vkey"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := query.FromLedger(dir); err == nil {
			t.Errorf("%s is taken for a key", name)
		}
	}
}
