// SPDX-License-Identifier: Apache-2.0

package export_test

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/collector/export"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var update = flag.Bool("update", false, "write the golden files again")

const origin = "example.org/agent/desk/0123"

// secret is what the records of a day commit to, and no format may hold.
var secret = bytes.Repeat([]byte{0xab, 0xcd}, 16)

// record makes the bytes of a record.
func record(t testing.TB, index uint64, kind writv1.RecordKind, id byte, body proto.Message) []byte {
	t.Helper()
	text, err := canonical.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	logID := ledger.LogID(origin)
	at := time.Date(2026, 1, 31, 9, 0, int(index), 123_456_789, time.UTC)
	r := &writv1.Record{LogId: logID[:], Index: index, Epoch: 1, TimeUnixNs: uint64(at.UnixNano()), Kind: kind, MonoNs: index, Body: text}
	if id != 0 {
		r.Tenant, r.DecisionId, r.BundleDigest = "acme", bytes.Repeat([]byte{id}, 16), bytes.Repeat([]byte{1}, 32)
		r.Commitments = []*writv1.Commitment{{Path: "arguments.iban", Digest: secret}}
	}
	raw, err := canonical.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decision(t testing.TB, index uint64, id byte, tool, user string, verdict writv1.Verdict, reason writv1.Reason, effect writv1.ToolEffect) []byte {
	t.Helper()
	return record(t, index, writv1.RecordKind_RECORD_KIND_DECISION, id, &writv1.DecisionRecord{
		Surface: writv1.Surface_SURFACE_EXT_AUTHZ, Origin: writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE, ToolEffect: effect, Upstream: "books",
		Principal: &writv1.Principal{User: user, Workload: "spiffe://example.org/desk", Roles: []string{"agent", "a,b"}, Tenant: "acme"},
		Envelope:  &writv1.Envelope{RequestId: "r-1", Intent: "refund\x1b[2J"},
		Tool:      tool, Arguments: []byte(`{"amount":12345678901234567890,"html":"<b>","note":"\u001b]0;x\u0007"}`),
		Decision: &writv1.Decision{Verdict: verdict, Reason: reason},
	})
}

// aDay is one record of each sort, and what a hostile planner writes.
func aDay(t testing.TB) [][]byte {
	t.Helper()
	const allow, deny, ask = writv1.Verdict_VERDICT_ALLOW, writv1.Verdict_VERDICT_DENY, writv1.Verdict_VERDICT_NEEDS_APPROVAL
	const read, write = writv1.ToolEffect_TOOL_EFFECT_READ, writv1.ToolEffect_TOOL_EFFECT_WRITE
	outcome := func(index uint64, id byte, state writv1.OutcomeState, status uint32, message string) []byte {
		return record(t, index, writv1.RecordKind_RECORD_KIND_OUTCOME, id, &writv1.OutcomeRecord{
			State: state, HttpStatus: status, Duration: durationpb.New(3 * time.Millisecond), Message: message, Result: []byte(`{"id":"x"}`),
		})
	}
	return [][]byte{
		record(t, 0, writv1.RecordKind_RECORD_KIND_START, 0, &writv1.StartRecord{Version: "1", Origin: origin}),
		record(t, 1, writv1.RecordKind_RECORD_KIND_BUNDLE, 0, &writv1.BundleRecord{Name: "desk", Digest: make([]byte, 32)}),
		decision(t, 2, 1, "books.refund", "alice", allow, writv1.Reason_REASON_GRANTED, write),
		outcome(3, 1, writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, 200, ""),
		decision(t, 4, 2, "books.list", "", allow, writv1.Reason_REASON_GRANTED, read),
		outcome(5, 2, writv1.OutcomeState_OUTCOME_STATE_FAILED, 0, "it broke"),
		decision(t, 6, 3, "=HYPERLINK(\"x\")\n\u202e", "@eve", deny, writv1.Reason_REASON_CONDITION_CHECK_FAILED, write),
		decision(t, 7, 4, "books.refund", "bob", ask, writv1.Reason_REASON_APPROVAL_REQUIRED, write),
		outcome(8, 9, writv1.OutcomeState_OUTCOME_STATE_UNKNOWN, 0, ""), // of a decision that is not here
		record(t, 9, writv1.RecordKind_RECORD_KIND_HEARTBEAT, 0, &writv1.HeartbeatRecord{Received: 3}),
		record(t, 10, writv1.RecordKind_RECORD_KIND_END, 0, &writv1.EndRecord{}),
	}
}

// written is what a format makes of records.
func written(t testing.TB, format string, records [][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := export.New(format, &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range records {
		if err := w.Write(origin, raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTheTextFormatsAreAsTheyWere(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"ndjson", "csv", "ocsf", "cloudtrail"} {
		for name, records := range map[string][][]byte{"day": aDay(t), "nothing": nil} {
			got := written(t, format, records)
			path := filepath.Join("testdata", name+"."+format)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
	}
}

func TestOneSetOfRecordsGivesOneFile(t *testing.T) {
	t.Parallel()
	for _, format := range export.Formats() {
		if a, b := written(t, format, aDay(t)), written(t, format, aDay(t)); !bytes.Equal(a, b) {
			t.Errorf("%s: two files of the same records differ", format)
		}
	}
	if _, err := export.New("xml", io.Discard); err == nil {
		t.Error("a format that there is not is taken")
	}
}

// What "records show" does not print of a record stands in no format: the commitments
// themselves are enough to test a guess against.
func TestNoFormatSaysMoreThanShowDoes(t *testing.T) {
	t.Parallel()
	var shown bytes.Buffer
	for _, raw := range aDay(t) {
		if err := query.WriteJSON(&shown, []*writv1.StoredRecord{{Origin: origin, Record: raw}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range export.Formats() {
		got := written(t, format, aDay(t))
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret)} {
			if bytes.Contains(got, []byte(form)) {
				t.Errorf("%s holds a commitment", format)
			}
		}
		if format == "ndjson" && !bytes.Equal(got, shown.Bytes()) {
			t.Errorf("ndjson is not what show prints:\n%s\n%s", got, shown.Bytes())
		}
	}
}

func TestNoTextFormatDisturbsATerminal(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"ndjson", "csv", "ocsf", "cloudtrail"} {
		if got := written(t, format, aDay(t)); bytes.ContainsAny(got, "\x1b\a\u202e") {
			t.Errorf("%s holds what moves a terminal's cursor", format)
		}
	}
}

func TestACellOfCSVIsNoFormulaAndComesBackWhole(t *testing.T) {
	t.Parallel()
	in := csv.NewReader(bytes.NewReader(written(t, "csv", aDay(t))))
	rows, err := in.ReadAll() // every row has as many cells as the heading, or this fails
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 12 {
		t.Fatalf("%d rows, want a heading and 11", len(rows))
	}
	for _, row := range rows {
		for i, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				t.Errorf("column %s: %q is a formula", rows[0][i], cell)
			}
		}
	}
	column := func(row int, name string) string { return rows[row][slices.Index(rows[0], name)] }
	for _, want := range []struct {
		row        int
		name, cell string
	}{
		{7, "tool", `'=HYPERLINK("x")\u{a}\u{202e}`},
		{7, "user", "'@eve"},
		{3, "roles", `["agent","a,b"]`},
		{3, "index", "2"},
		{3, "time", "2026-01-31T09:00:02.123456789Z"},
		{4, "result", `{"id":"x"}`},
		{3, "commitments", `["arguments.iban"]`},
	} {
		if got := column(want.row, want.name); got != want.cell {
			t.Errorf("row %d, %s: %q, want %q", want.row, want.name, got, want.cell)
		}
	}
}

// columns are what another program reads of a Parquet file.
type columns struct {
	Time      time.Time `parquet:"time,timestamp(nanosecond)"`
	Index     uint64    `parquet:"index"`
	Kind      string    `parquet:"kind"`
	Tool      *string   `parquet:"tool,optional"`
	User      *string   `parquet:"user,optional"`
	Roles     []string  `parquet:"roles,list"`
	Arguments *string   `parquet:"arguments,optional"`
	Body      *string   `parquet:"body,optional"`
}

func TestParquetIsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	file := written(t, "parquet", aDay(t))
	rows, err := parquet.Read[columns](bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 11 {
		t.Fatalf("%d rows, want 11", len(rows))
	}
	got := rows[6]
	if got.Index != 6 || got.Kind != "DECISION" || got.Tool == nil || *got.Tool != "=HYPERLINK(\"x\")\n\u202e" || *got.User != "@eve" ||
		!slices.Equal(got.Roles, []string{"agent", "a,b"}) || !got.Time.Equal(time.Date(2026, 1, 31, 9, 0, 6, 123_456_789, time.UTC)) ||
		!strings.Contains(*got.Arguments, "12345678901234567890") || !json.Valid([]byte(*got.Body)) {
		t.Errorf("row 6 = %+v", got)
	}
	if start := rows[0]; start.Tool != nil || start.User != nil || len(start.Roles) != 0 {
		t.Errorf("what is absent is there: %+v", start)
	}
}

func TestParquetKeepsNoMoreThanARowGroupInMemory(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("x"), 60_000)
	var records [][]byte
	for i := range uint64(600) {
		records = append(records, record(t, i, writv1.RecordKind_RECORD_KIND_DECISION, 1, &writv1.DecisionRecord{Tool: "t", Arguments: big}))
	}
	file := written(t, "parquet", records)
	opened, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(opened.RowGroups()); n < 2 || opened.NumRows() != 600 {
		t.Errorf("%d row groups of %d rows, want two or more of 600", n, opened.NumRows())
	}
}

func TestWhatIsNoRecordOfTheLedgerIsNotWritten(t *testing.T) {
	t.Parallel()
	for _, format := range export.Formats() {
		w, err := export.New(format, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write("example.org/another", aDay(t)[0]); err == nil {
			t.Errorf("%s: a record of another ledger is written", format)
		}
		if err := w.Write(origin, []byte{0xff}); err == nil {
			t.Errorf("%s: what is no record is written", format)
		}
	}
}

// published is what of OCSF events are held against: testdata has it from the schema.
type published struct {
	Classes map[string]struct {
		CategoryUID int              `json:"category_uid"`
		Required    []string         `json:"required"`
		Attributes  []string         `json:"attributes"`
		Enums       map[string][]int `json:"enums"`
	} `json:"classes"`
	Objects map[string]struct {
		Required   []string `json:"required"`
		Attributes []string `json:"attributes"`
		AtLeastOne []string `json:"at_least_one"`
	} `json:"objects"`
}

func TestEventsKeepToThePublishedSchemaOfOCSF(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("testdata", "ocsf-"+export.SchemaOCSF+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema published
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(written(t, "ocsf", aDay(t))) {
		var event map[string]any
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		uid := fmt.Sprint(event["class_uid"])
		seen[uid] = true
		class, known := schema.Classes[uid]
		if !known || event["category_uid"] != float64(class.CategoryUID) {
			t.Fatalf("class %s of category %v: %s", uid, event["category_uid"], line)
		}
		if event["type_uid"] != event["class_uid"].(float64)*100+event["activity_id"].(float64) {
			t.Errorf("type_uid %v: %s", event["type_uid"], line)
		}
		has(t, "", event, class.Required, class.Attributes, nil)
		for name, allowed := range class.Enums {
			if value, there := event[name]; there && !slices.Contains(allowed, int(value.(float64))) {
				t.Errorf("%s = %v, one of %v: %s", name, value, allowed, line)
			}
		}
		schema.objects(t, "", event)
	}
	if len(seen) != 3 {
		t.Errorf("classes %v, want all three", seen)
	}
}

// objects holds the objects of an event against their schema.
func (p published) objects(t *testing.T, path string, value any) {
	t.Helper()
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			p.objects(t, path, element)
		}
	case map[string]any:
		if object, known := p.Objects[path]; known {
			has(t, path, v, object.Required, object.Attributes, object.AtLeastOne)
		} else if path != "" {
			t.Errorf("%s is no object of the schema", path)
		}
		for name, inner := range v {
			at := strings.TrimPrefix(path+"."+name, ".")
			if at != "unmapped" && name != "data" { // free in the schema
				p.objects(t, at, inner)
			}
		}
	}
}

func has(t *testing.T, path string, object map[string]any, required, attributes, oneOf []string) {
	t.Helper()
	for _, name := range required {
		if _, there := object[name]; !there {
			t.Errorf("%q lacks %s: %v", path, name, object)
		}
	}
	some := len(oneOf) == 0
	for name := range object {
		if !slices.Contains(attributes, name) {
			t.Errorf("%q has %s, which the schema has not", path, name)
		}
		some = some || slices.Contains(oneOf, name)
	}
	if !some {
		t.Errorf("%q has none of %v: %v", path, oneOf, object)
	}
}

func TestAFileOfCloudTrailsShapeIsOneObject(t *testing.T) {
	t.Parallel()
	var file struct {
		Records []map[string]any `json:"Records"`
	}
	if err := json.Unmarshal(written(t, "cloudtrail", aDay(t)), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Records) != 11 {
		t.Fatalf("%d records", len(file.Records))
	}
	ids := map[any]bool{}
	for _, event := range file.Records {
		for _, name := range []string{"eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "eventID", "eventType", "eventCategory"} {
			if event[name] == nil || event[name] == "" {
				t.Errorf("no %s: %v", name, event)
			}
		}
		ids[event["eventID"]] = true
	}
	if len(ids) != 11 || file.Records[3]["eventName"] != "books.refund" || file.Records[6]["errorCode"] != "CONDITION_CHECK_FAILED" || file.Records[4]["readOnly"] != true {
		t.Errorf("events %v", file.Records)
	}
}
