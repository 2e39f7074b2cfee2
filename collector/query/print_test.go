// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var update = flag.Bool("update", false, "write the golden files again")

const deskOrigin = "example.org/agent/desk/00112233445566778899aabbccddeeff"

// stored makes a record of a body, as a collector has it.
func stored(t testing.TB, r *writv1.Record, body proto.Message) *writv1.StoredRecord {
	t.Helper()
	raw, err := canonical.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return storedRaw(t, r, raw)
}

func storedRaw(t testing.TB, r *writv1.Record, body []byte) *writv1.StoredRecord {
	t.Helper()
	id := ledger.LogID(deskOrigin)
	r.LogId, r.Epoch, r.Body = id[:], 1, body
	r.TimeUnixNs = uint64(morning.UnixNano()) + r.GetIndex()*1e9
	raw, err := canonical.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return &writv1.StoredRecord{Origin: deskOrigin, Record: raw, ReceiveTime: timestamppb.New(morning.AddDate(0, 0, 1))}
}

// aCase is a decision with everything in it, its outcome, and what surrounds them.
func aCase(t testing.TB) []*writv1.StoredRecord {
	t.Helper()
	sum := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	budget := &writv1.Reserve{Budget: "refunds", Key: []string{"acme", "a, b"}, WindowStart: at(0), Dimension: writv1.Dimension_DIMENSION_CALLS, Amount: 1}
	return []*writv1.StoredRecord{
		stored(t, &writv1.Record{Index: 0, Kind: writv1.RecordKind_RECORD_KIND_START}, &writv1.StartRecord{Version: "1.2.3", Origin: deskOrigin, LostBytes: 7}),
		stored(t, &writv1.Record{
			Index: 1, Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionId: id(1), BundleDigest: sum(1),
			Commitments: []*writv1.Commitment{{Path: "arguments.iban", Digest: sum(2)}},
		}, &writv1.DecisionRecord{
			Surface: writv1.Surface_SURFACE_EXT_PROC, Origin: writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE,
			Principal: &writv1.Principal{Workload: "spiffe://example.org/ns/desk/sa/planner", User: "alice", Roles: []string{"agent", "team, lead"}, Tenant: "acme"},
			Envelope: &writv1.Envelope{
				RequestId: "r-1", Session: "s-1", Workflow: "refund", Intent: "refund_request", UserRole: "admin", ModelRoute: "support", ModelPin: "m-1",
				PromptVersion: "p-1", Retrieval: &writv1.Retrieval{KbDocIds: []string{"kb-1", "kb-2"}, Tenant: "acme", TopK: 3, Documents: []*writv1.RetrievedDocument{{Id: "kb-3"}}},
				ToolCall: &writv1.ToolCall{Name: "books.refund", PolicyChecks: []string{"small"}, Approved: true},
			},
			Tool: "books.refund", SchemaDigest: sum(3), Identity: sum(4), Arguments: []byte(`{"amount":{"currency":"EUR","units":12},"note":"a\u001bb"}`),
			Facts: &writv1.Facts{
				Time: at(1), Pin: &writv1.Pin{State: writv1.PinState_PIN_STATE_MATCHED, ObservedDigest: "sha256:00"},
				Balances: []*writv1.Balance{{Budget: "refunds", Key: []string{"acme"}, Dimension: writv1.Dimension_DIMENSION_CALLS, Taken: 4}},
			},
			Decision: &writv1.Decision{
				Verdict: writv1.Verdict_VERDICT_DENY, Reason: writv1.Reason_REASON_CONDITION_CHECK_FAILED,
				Checks: []*writv1.Check{
					{Stage: "principal", Name: "authenticated", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_PASS},
					{Stage: "grant", Name: "agents may refund", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_PASS},
					{Stage: "condition", Name: "small", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_FAIL, Reason: writv1.Reason_REASON_CONDITION_CHECK_FAILED, Field: "amount.units", Message: "ask for 10 at most"},
					{Stage: "budget", Name: "refunds", Outcome: writv1.CheckOutcome_CHECK_OUTCOME_NOT_EVALUATED},
				},
				Obligations: []*writv1.Obligation{{Obligation: &writv1.Obligation_RedactResponse{RedactResponse: &writv1.RedactResponse{Path: "card", Sensitivity: writv1.Sensitivity_SENSITIVITY_REDACT}}}},
				Effects:     []*writv1.Effect{{Effect: &writv1.Effect_Reserve{Reserve: budget}}},
			},
			IdempotencyDigest: sum(5), EarlierDecisionId: id(9), ApprovalId: "ap-1", RequestDigest: sum(6), InputDigest: sum(7),
			Durability: writv1.Durability_DURABILITY_REMOTE, TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Upstream: "books",
		}),
		stored(t, &writv1.Record{
			Index: 2, Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Tenant: "acme", DecisionId: id(1),
			Commitments: []*writv1.Commitment{{Path: "result.card", Digest: sum(8)}},
		}, &writv1.OutcomeRecord{
			State: writv1.OutcomeState_OUTCOME_STATE_FAILED, Reason: writv1.Reason_REASON_EXECUTION_TIMEOUT, Duration: durationpb.New(1500e6),
			Result: []byte(`{"id":"x"}`), ResultDigest: sum(9), RequestBytes: 10, ResponseBytes: 20, HttpStatus: 504, Redactions: []string{"card"},
			GivenBack: []*writv1.Reserve{budget}, Message: "the tool took too long",
		}),
		stored(t, &writv1.Record{Index: 3, Kind: writv1.RecordKind_RECORD_KIND_HEARTBEAT}, &writv1.HeartbeatRecord{Received: 1, Denied: 1}),
		{Origin: deskOrigin, Record: []byte("not a record")},
	}
}

func TestRecordsArePrintedAsReviewed(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(io.Writer, []*writv1.StoredRecord) error{
		"table.txt": query.WriteTable, "records.ndjson": query.WriteJSON, "show.txt": query.WriteRecord,
	} {
		var got bytes.Buffer
		if err := write(&got, aCase(t)); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file) //nolint:gosec // ours
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s changed (-want +got); review it and run with -update:\n%s", name, diff)
		}
	}
}

// unshown are fields of a body that a human is not shown: they stand in its JSON.
var unshown = map[string]bool{
	"envelope.retrieval.documents.retrieve_time": true, "envelope.retrieval.documents.snippet_sha256": true,
	"approval.sealed.ciphertext": true, "approval.sealed.keys.sealed": true,
	"envelope.tool_call.args.text": true, // never recorded: "arguments" is
	"facts.balances.window_start":  true, "decision.effects.reserve.window_start": true, "given_back.window_start": true,
	"overrun.window_start": true, "decision.effects.reserve.expire_time": true, "given_back.expire_time": true, "overrun.expire_time": true,
}

// leaves calls visit with the path of every field of a message that holds no message but
// a time, and a copy of root in which that field alone is set.
func leaves(m protoreflect.Message, path string, depth int, root func() proto.Message, visit func(string, proto.Message)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		here := strings.TrimPrefix(path+"."+string(f.Name()), ".")
		wellKnown := f.Message() != nil && f.Message().ParentFile().Package() == "google.protobuf"
		var v protoreflect.Value
		switch {
		case f.Message() != nil && !wellKnown:
			if depth == 0 {
				continue
			}
			v = m.NewField(f)
			if f.IsList() {
				v = v.List().AppendMutable()
			}
			set(m, f, v)
			leaves(v.Message(), here, depth-1, root, visit)
			m.Clear(f)
			continue
		case wellKnown:
			v = m.NewField(f)
			v.Message().Set(f.Message().Fields().ByName("seconds"), protoreflect.ValueOfInt64(77))
		case f.Kind() == protoreflect.EnumKind:
			v = protoreflect.ValueOfEnum(1)
		default:
			v = map[protoreflect.Kind]protoreflect.Value{
				protoreflect.StringKind: protoreflect.ValueOfString("here"), protoreflect.BytesKind: protoreflect.ValueOfBytes([]byte(`"here"`)),
				protoreflect.Int64Kind: protoreflect.ValueOfInt64(77), protoreflect.Int32Kind: protoreflect.ValueOfInt32(77), protoreflect.Uint64Kind: protoreflect.ValueOfUint64(77),
				protoreflect.Uint32Kind: protoreflect.ValueOfUint32(77), protoreflect.BoolKind: protoreflect.ValueOfBool(true),
			}[f.Kind()]
		}
		set(m, f, v)
		visit(here, root())
		m.Clear(f)
	}
}

func set(m protoreflect.Message, f protoreflect.FieldDescriptor, v protoreflect.Value) {
	if !f.IsList() {
		m.Set(f, v)
		return
	}
	m.Mutable(f).List().Append(v)
}

func TestEveryFieldOfADecisionAndItsOutcomeIsShown(t *testing.T) {
	t.Parallel()
	for kind, body := range map[writv1.RecordKind]proto.Message{
		writv1.RecordKind_RECORD_KIND_DECISION: &writv1.DecisionRecord{}, writv1.RecordKind_RECORD_KIND_OUTCOME: &writv1.OutcomeRecord{},
	} {
		show := func(body proto.Message) string {
			var out bytes.Buffer
			if err := query.WriteRecord(&out, []*writv1.StoredRecord{stored(t, &writv1.Record{Kind: kind}, body)}); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		n := 0
		leaves(body.ProtoReflect(), "", 5, func() proto.Message { return proto.Clone(body) }, func(path string, only proto.Message) {
			n++
			out := show(only)
			bare := proto.Clone(only)
			clearLeaves(bare.ProtoReflect())
			if shown := out != show(bare); shown == unshown[path] {
				t.Errorf("%s: shown is %v", path, shown)
			}
		})
		if n < 15 {
			t.Errorf("%s has %d fields", body.ProtoReflect().Descriptor().Name(), n)
		}
	}
}

// clearLeaves takes everything out of a message but its messages.
func clearLeaves(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.Message().ParentFile().Package() == "google.protobuf":
			m.Clear(f)
		case f.IsList():
			for i := range v.List().Len() {
				clearLeaves(v.List().Get(i).Message())
			}
		default:
			clearLeaves(v.Message())
		}
		return true
	})
}

func TestATableGoesOnUnderItsHeading(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	table := query.NewTable(&got)
	for _, r := range aCase(t) {
		if err := table.Write([]*writv1.StoredRecord{r}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n")
	if len(lines) != 6 || !strings.HasPrefix(lines[0], "TIME ") || strings.Count(got.String(), "TIME ") != 1 {
		t.Errorf("table:\n%s", got.String())
	}
}

// nasty are values that would do something to a terminal, or pass for something else.
var nasty = []string{
	"\x1b[2J\x1b]0;title\a", "\u009b31m", "a\rb", "a\nDECISION  00", "tab\tbed", "\x00", "\x7f", "\u2028x\u2029",
	"\u202egnp.exe", "\u2066x\u2069", "\u200bzero\u200d", "\ufeffbom", "\u00a0nbsp", "\u3164filler\u115f", "\u2800\u2800", "e\u0301\u0301\u0301\u0301\u0301\u0301",
	"\u05d0\u05d1 1", "\u0627\u0644", "\ufe0fselected", "\U000e0041tag", "\U000e0100", "\ue000", "\U0010ffff", "\U0010a000",
	"2026-01-31T09:00:00.000Z  DECISION  ALLOW", "-", `"quoted" \"twice\"`, `\u{1b}`, "", " ", "…", "a, b", "世界", strings.Repeat("long ", 50),
}

// fill sets every string of a message to a value, and its bytes too.
func fill(m protoreflect.Message, value string, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		one := func() (protoreflect.Value, bool) {
			switch {
			case f.Kind() == protoreflect.StringKind:
				return protoreflect.ValueOfString(value), true
			case f.Kind() == protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(value)), true
			case f.Message() != nil && depth > 0:
				inner := m.NewField(f)
				if f.IsList() {
					inner = inner.List().NewElement()
				}
				fill(inner.Message(), value, depth-1)
				return inner, true
			default:
				return protoreflect.Value{}, false
			}
		}
		v, ok := one()
		switch {
		case !ok || f.ContainingOneof() != nil && m.Has(f):
		case f.IsList():
			m.Mutable(f).List().Append(v)
		default:
			m.Set(f, v)
		}
	}
}

// checkPrinted says what in an output could disturb a terminal.
func checkPrinted(t *testing.T, value, out string) {
	t.Helper()
	marks := 0
	for _, r := range out {
		if marks++; !unicode.Is(unicode.M, r) {
			marks = 0
		}
		bidi := unicode.In(r, unicode.Hebrew, unicode.Arabic, unicode.Bidi_Control, unicode.Syriac, unicode.Thaana, unicode.Nko)
		hidden := unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Cf, unicode.Co) || r == '\u2800'
		if r != '\n' && !unicode.IsPrint(r) || bidi || hidden || marks > 4 {
			t.Fatalf("%q: %U is printed:\n%q", value, r, out)
		}
	}
}

func TestHostileValuesNeitherDisturbATerminalNorForgeARow(t *testing.T) {
	t.Parallel()
	for _, value := range nasty {
		for kind, body := range map[writv1.RecordKind]proto.Message{
			writv1.RecordKind_RECORD_KIND_DECISION: &writv1.DecisionRecord{}, writv1.RecordKind_RECORD_KIND_OUTCOME: &writv1.OutcomeRecord{},
			writv1.RecordKind_RECORD_KIND_START: &writv1.StartRecord{}, writv1.RecordKind_RECORD_KIND_BUNDLE: &writv1.BundleRecord{},
		} {
			fill(body.ProtoReflect(), value, 5)
			record := stored(t, &writv1.Record{
				Kind: kind, Tenant: value, DecisionId: []byte(value)[:min(16, len(value))], BundleDigest: []byte(value),
				Commitments: []*writv1.Commitment{{Path: value, Digest: []byte(value)}},
			}, body)
			foreign := proto.CloneOf(record)
			foreign.Origin = value
			checkTable(t, value, record, foreign)
			checkJSON(t, value, record, foreign)
			checkShow(t, value, record, foreign)
		}
	}
}

func checkTable(t *testing.T, value string, records ...*writv1.StoredRecord) {
	t.Helper()
	var out bytes.Buffer
	if err := query.WriteTable(&out, records); err != nil {
		t.Fatal(err)
	}
	checkPrinted(t, value, out.String())
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(records)+1 {
		t.Errorf("%q: %d lines for %d records:\n%s", value, len(lines), len(records), out.String())
	}
	for _, line := range lines {
		// Outside of quotes there are nine columns, whatever is in them.
		if n := len(strings.Fields(unquoted(line))); n != 9 {
			t.Errorf("%q: %d columns in %q", value, n, line)
		}
	}
}

// unquoted is a line with a letter in the place of what is quoted in it.
func unquoted(line string) string {
	var b strings.Builder
	for in, i := false, 0; i < len(line); i++ {
		switch {
		case line[i] == '\\':
			i++
		case line[i] == '"':
			if in = !in; in {
				b.WriteByte('q')
			}
			continue
		case in:
			continue
		}
		if !in && i < len(line) {
			b.WriteByte(line[i])
		}
	}
	return b.String()
}

func checkJSON(t *testing.T, value string, records ...*writv1.StoredRecord) {
	t.Helper()
	var out bytes.Buffer
	if err := query.WriteJSON(&out, records); err != nil {
		t.Fatal(err)
	}
	checkPrinted(t, value, out.String())
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(records) {
		t.Errorf("%q: %d lines for %d records", value, len(lines), len(records))
	}
	for i, line := range lines {
		var got struct{ Origin, Tenant string }
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.Origin != records[i].GetOrigin() || i == 0 && got.Tenant != value {
			t.Errorf("%q: reads back as %q, %q (%v)", value, got.Origin, got.Tenant, err)
		}
	}
}

func checkShow(t *testing.T, value string, records ...*writv1.StoredRecord) {
	t.Helper()
	var out bytes.Buffer
	if err := query.WriteRecord(&out, records); err != nil {
		t.Fatal(err)
	}
	checkPrinted(t, value, out.String())
	margin := 0
	for line := range strings.Lines(out.String()) {
		if line != "\n" && line[0] != ' ' {
			margin++
		}
	}
	if margin != len(records) {
		t.Errorf("%q: %d headings for %d records:\n%s", value, margin, len(records), out.String())
	}
}

func TestWhatIsNoTextMakesARecordUnreadable(t *testing.T) {
	t.Parallel()
	body := protowire.AppendTag(nil, 4, protowire.BytesType) // tool
	body = protowire.AppendBytes(body, []byte("tool\xff\x1b[0m"))
	record := storedRaw(t, &writv1.Record{Kind: writv1.RecordKind_RECORD_KIND_DECISION, DecisionId: id(1)}, body)
	for name, write := range map[string]func(io.Writer, []*writv1.StoredRecord) error{
		"table": query.WriteTable, "json": query.WriteJSON, "show": query.WriteRecord,
	} {
		var out bytes.Buffer
		if err := write(&out, []*writv1.StoredRecord{record}); err != nil {
			t.Fatal(err)
		}
		checkPrinted(t, name, out.String())
		if name != "json" && !strings.Contains(out.String(), "UNREADABLE") || name == "json" && !strings.Contains(out.String(), `"error":`) {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}

func TestARecordOfAnotherLedgerIsNotShownAsOneOfThis(t *testing.T) {
	t.Parallel()
	record := aCase(t)[1]
	record.Origin += "f"
	for name, write := range map[string]func(io.Writer, []*writv1.StoredRecord) error{
		"table": query.WriteTable, "json": query.WriteJSON, "show": query.WriteRecord,
	} {
		var out bytes.Buffer
		if err := write(&out, []*writv1.StoredRecord{record}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "books.refund") || name != "table" && !strings.Contains(out.String(), "another ledger") {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}

func TestARecordedTextThatReadersReadApartStandsInTheBodyOnly(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"a":1,"a":2}`, `{"a":1} {`, "\"\xff\"", `{"a":01}`, strings.Repeat("[", 20000)} {
		record := stored(t, &writv1.Record{Kind: writv1.RecordKind_RECORD_KIND_DECISION}, &writv1.DecisionRecord{Arguments: []byte(text)})
		var out, show bytes.Buffer
		if err := query.WriteJSON(&out, []*writv1.StoredRecord{record}); err != nil {
			t.Fatal(err)
		}
		var got struct{ Arguments json.RawMessage }
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Arguments != nil {
			t.Errorf("%.20q: arguments are %.40s (%v)", text, got.Arguments, err)
		}
		if err := query.WriteRecord(&show, []*writv1.StoredRecord{record}); err != nil {
			t.Fatal(err)
		}
		checkPrinted(t, text, show.String())
	}
}

func FuzzPrintingIsSafe(f *testing.F) {
	for _, value := range nasty {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		record := stored(t, &writv1.Record{Kind: writv1.RecordKind_RECORD_KIND_DECISION}, &writv1.DecisionRecord{Arguments: []byte(value)})
		record.Origin = value
		own := stored(t, &writv1.Record{Kind: writv1.RecordKind_RECORD_KIND_DECISION}, &writv1.DecisionRecord{
			Tool: strings.ToValidUTF8(value, "?"), Arguments: []byte(value),
		})
		checkTable(t, value, own, record)
		checkShow(t, value, own, record)
		var out bytes.Buffer
		if err := query.WriteJSON(&out, []*writv1.StoredRecord{own, record}); err != nil {
			t.Fatal(err)
		}
		checkPrinted(t, value, out.String())
	})
}
