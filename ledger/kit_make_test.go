// SPDX-License-Identifier: Apache-2.0

package ledger // white box: as kit_test.go

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const kitOrigin = "example.org/agent/desk/0123456789abcdef0123456789abcdef"

var kitTime = time.Date(2026, 7, 28, 9, 0, 0, 0, time.UTC)

// kitMaker makes the vectors, on a ledger whose key, salts and times are chosen.
type kitMaker struct {
	t    *testing.T
	l    *Ledger
	vkey string
	out  []vector
}

// makeKit makes every vector.
func makeKit(t *testing.T) []vector {
	t.Helper()
	signer, verifier, vkey := kitKey(t, kitOrigin)
	commitKey := slices.Repeat([]byte{7}, 32)
	m := &kitMaker{t: t, vkey: vkey, l: &Ledger{
		id: &identity{
			origin: kitOrigin, logID: LogID(kitOrigin), signer: signer, verifier: verifier, vkey: vkey, commitKey: commitKey,
		},
		epoch: 1, start: kitTime, hasher: newHasher(),
	}}
	m.validRecords()
	m.badRecords()
	m.segments()
	m.badFrames()
	m.badStructures()
	m.badContents()
	m.checkpoints()
	m.receipts()
	m.commitments()
	m.logEntries()
	return m.out
}

// add adds a vector; fields are pairs.
func (m *kitMaker) add(name, comment, kind, expect string, payload []byte, fields ...string) {
	v := vector{name: kind + "-" + name, fields: map[string]string{"comment": comment, "kind": kind, "expect": expect}, payload: bytes.Clone(payload)}
	for i := 0; i < len(fields); i += 2 {
		v.fields[fields[i]] = fields[i+1]
	}
	m.out = append(m.out, v)
}

// entries are one of each kind of record.
func entries() []Entry {
	decision := slices.Repeat([]byte{0xd1}, 16)
	session := slices.Repeat([]byte{0x5e}, 16)
	at := timestamppb.New(kitTime)
	return []Entry{
		{Kind: writv1.RecordKind_RECORD_KIND_START, Body: &writv1.StartRecord{Version: "v1", Origin: kitOrigin}},
		{Kind: writv1.RecordKind_RECORD_KIND_BUNDLE, BundleDigest: slices.Repeat([]byte{0xb0}, 32), Body: &writv1.BundleRecord{Name: "desk", Digest: slices.Repeat([]byte{0xb0}, 32), Tools: 3, Grants: 2}},
		{Kind: writv1.RecordKind_RECORD_KIND_SESSION, Tenant: "acme", Body: &writv1.SessionRecord{Session: session, Event: writv1.SessionEvent_SESSION_EVENT_BEGIN, Time: at}},
		{Kind: writv1.RecordKind_RECORD_KIND_OBSERVATION, Tenant: "acme", Body: &writv1.ObservationRecord{Session: session, Source: "user", Time: at}},
		{Kind: writv1.RecordKind_RECORD_KIND_WORKFLOW, Tenant: "acme", Body: &writv1.WorkflowRecord{Run: session, Session: session, Contract: "refund", Time: at}},
		{
			Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: decision, BundleDigest: slices.Repeat([]byte{0xb0}, 32),
			Body: &writv1.DecisionRecord{
				Surface: writv1.Surface_SURFACE_EXT_AUTHZ, Tool: "payments.issue_refund", Arguments: []byte(`{"amount":{"units":12}}`),
				Principal: &writv1.Principal{User: "ada", Tenant: "acme", Roles: []string{"agent"}},
				Decision:  &writv1.Decision{Verdict: writv1.Verdict_VERDICT_ALLOW, Reason: writv1.Reason_REASON_GRANTED},
				Origin:    writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE,
			},
			Sensitive: []Sensitive{{Path: "arguments.card", Value: []byte(`"4111"`)}, {Path: "arguments.iban", Value: []byte(`"DE02"`)}},
		},
		{Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Tenant: "acme", DecisionID: decision, Body: &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED, HttpStatus: 200}},
		{Kind: writv1.RecordKind_RECORD_KIND_APPROVAL, Tenant: "acme", DecisionID: decision, Body: &writv1.ApprovalVote{ApprovalId: strings.Repeat("a", 32), Approver: "grace", Time: at}},
		{Kind: writv1.RecordKind_RECORD_KIND_REVIEW, Tenant: "acme", DecisionID: decision, Body: &writv1.ReviewLabel{DecisionId: decision, Reviewer: "grace", Verdict: writv1.Verdict_VERDICT_DENY}},
		{Kind: writv1.RecordKind_RECORD_KIND_ALERT, Body: &writv1.AlertRecord{Time: at, Budget: "refunds"}},
		{Kind: writv1.RecordKind_RECORD_KIND_STOP, Tenant: "acme", Body: &writv1.StopOrder{
			Stop:   &writv1.Stop{Scope: &writv1.StopScope{Tool: "payments.*", Tenant: proto.String("acme")}, Time: at, ExpireTime: at},
			Choice: writv1.StopChoice_STOP_CHOICE_STOP, Operator: "grace",
		}},
		{Kind: writv1.RecordKind_RECORD_KIND_READ, Body: &writv1.ReadRecord{Reader: "spiffe://example.org/auditor", Tenants: []string{"acme"}, Method: "/writ.v1.RecordService/GetRecord", Request: "{}"}},
		{Kind: writv1.RecordKind_RECORD_KIND_KEY, Tenant: "acme", Body: &writv1.KeyRecord{Act: writv1.KeyAct_KEY_ACT_SHREDDED, Tenant: "acme", Before: "2026-01-31", Shredded: 3, By: "grace"}},
		{Kind: writv1.RecordKind_RECORD_KIND_LEASE, Tenant: "acme", Body: &writv1.LeaseRecord{What: &writv1.LeaseRecord_Ask{Ask: &writv1.LeaseAsk{Seq: 1, Budget: "refunds", Limit: 100, Want: 10}}}},
		{Kind: writv1.RecordKind_RECORD_KIND_HEARTBEAT, Body: &writv1.HeartbeatRecord{Received: 300, Allowed: 200, Denied: 100}},
		{Kind: writv1.RecordKind_RECORD_KIND_END, Body: &writv1.EndRecord{OpenAdmissions: 1}},
	}
}

// record makes the canonical bytes of an entry at an index.
func (m *kitMaker) record(e Entry, index uint64) []byte {
	m.t.Helper()
	p, err := newPending(e)
	if err != nil {
		m.t.Fatal(err)
	}
	raw, err := m.l.appendRecord(nil, p, index, kitTime.Add(time.Duration(index)*time.Millisecond)) //nolint:gosec // small
	if err != nil {
		m.t.Fatal(err)
	}
	return raw
}

func (m *kitMaker) validRecords() {
	for i, e := range entries() {
		name := strings.ToLower(strings.TrimPrefix(e.Kind.String(), "RECORD_KIND_"))
		m.validRecord("valid-"+name, "a record of kind "+name, m.record(e, uint64(i)), i)
	}
	sealed := Entry{Kind: writv1.RecordKind_RECORD_KIND_OUTCOME, Tenant: "acme", Body: &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED}, Sealed: &writv1.SealedOriginals{
		Day: "2026-01-31", KeyId: slices.Repeat([]byte{0x4b}, 32), WrappedKey: slices.Repeat([]byte{0x57}, 80), Ciphertext: slices.Repeat([]byte{0xc1}, 60),
	}}
	m.validRecord("valid-sealed", "a record with something sealed", m.record(sealed, 0), 0)
	start := entries()[0]
	most := m.record(start, 0)
	start.Body = &writv1.StartRecord{Version: strings.Repeat("v", MaxRecordBytes-len(most)-2)}
	start.Body.(*writv1.StartRecord).Origin = kitOrigin
	for raw := m.record(start, 0); len(raw) != MaxRecordBytes; raw = m.record(start, 0) {
		body := start.Body.(*writv1.StartRecord)
		body.Version = strings.Repeat("v", len(body.Version)+MaxRecordBytes-len(raw))
	}
	m.validRecord("valid-largest", "a record of 65,535 bytes", m.record(start, 0), 0)
	body := start.Body.(*writv1.StartRecord)
	body.Version += "v"
	p, err := newPending(start)
	if err != nil {
		m.t.Fatal(err)
	}
	raw, err := m.l.appendRecord(nil, p, 0, kitTime)
	if err != nil {
		m.t.Fatal(err)
	}
	m.badRecord("too-large", "a record of 65,536 bytes", raw)
}

func (m *kitMaker) validRecord(name, comment string, raw []byte, index int) {
	leaf := m.l.hasher.leaf(raw)
	m.add(name, comment, "record", "valid", raw, "origin", kitOrigin, "index", strconv.Itoa(index), "leaf", hex.EncodeToString(leaf[:]))
}

func (m *kitMaker) badRecord(name, comment string, raw []byte, fields ...string) {
	m.add(name, comment, "record", "record", raw, append([]string{"origin", kitOrigin, "index", "0"}, fields...)...)
}

// tlv are the fields of a message, in any order and form: the raw material of records
// that no encoder makes.
type tlv struct {
	tag   uint64
	value []byte // with its length, where the wire type has one
}

func splitFields(raw []byte) (out []tlv) {
	for len(raw) > 0 {
		tag, n := protowire.ConsumeVarint(raw)
		number, wire := protowire.DecodeTag(tag)
		m := protowire.ConsumeFieldValue(number, wire, raw[n:])
		out = append(out, tlv{tag, raw[n : n+m]})
		raw = raw[n+m:]
	}
	return out
}

func joinFields(fields ...tlv) (out []byte) {
	for _, f := range fields {
		out = append(protowire.AppendVarint(out, f.tag), f.value...)
	}
	return out
}

func varintField(n protowire.Number, v uint64) tlv {
	return tlv{protowire.EncodeTag(n, protowire.VarintType), protowire.AppendVarint(nil, v)}
}

func bytesField(n protowire.Number, v []byte) tlv {
	return tlv{protowire.EncodeTag(n, protowire.BytesType), protowire.AppendBytes(nil, v)}
}

// replaced is fields with those of f's number replaced by it.
func replaced(fields []tlv, f tlv) []byte {
	out := slices.Clone(fields)
	number, _ := protowire.DecodeTag(f.tag)
	for i := range out {
		if n, _ := protowire.DecodeTag(out[i].tag); n == number {
			out[i] = f
		}
	}
	return joinFields(out...)
}

func (m *kitMaker) badRecords() {
	// Index 0 is not written, so that the fields are log id, epoch, tenant, time, kind, ...
	good := m.record(entries()[5], 0)
	fields := splitFields(good)
	m.badRecord("other-place", "a record of index 1 where 0 belongs", m.record(entries()[5], 1))
	m.badRecord("other-ledger", "the log id is that of another origin", replaced(fields, bytesField(1, slices.Repeat([]byte{1}, 32))))
	m.badRecord("short-log-id", "a log id of 31 bytes", replaced(fields, bytesField(1, m.l.id.logID[:31])))
	m.badRecord("unknown-field", "field 99 stands at the end", append(bytes.Clone(good), joinFields(varintField(99, 1))...))
	swapped := slices.Clone(fields)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	m.badRecord("out-of-order", "the epoch stands before the log id", joinFields(swapped...))
	m.badRecord("field-twice", "the epoch stands twice", joinFields(slices.Insert(slices.Clone(fields), 1, fields[1])...))
	m.badRecord("default-written", "the index, 0, is written", joinFields(slices.Insert(slices.Clone(fields), 1, tlv{protowire.EncodeTag(2, protowire.Fixed64Type), make([]byte, 8)})...))
	m.badRecord("empty-tenant-written", "the tenant, empty, is written", replaced(fields, bytesField(4, nil)))
	m.badRecord("long-varint", "the epoch is a varint of two bytes where one is enough", replaced(fields, tlv{fields[1].tag, []byte{0x81, 0}}))
	m.badRecord("long-tag", "a tag of two bytes where one is enough", append([]byte{good[0] | 0x80, 0}, good[1:]...))
	m.badRecord("long-length", "a length of two bytes where one is enough", replaced(fields, tlv{fields[0].tag, append([]byte{0xa0, 0}, m.l.id.logID[:]...)}))
	m.badRecord("wrong-wire-type", "the index is a varint", joinFields(slices.Insert(slices.Clone(fields), 1, varintField(2, 5))...))
	m.badRecord("no-utf-8", "the tenant is not UTF-8", replaced(fields, bytesField(4, []byte{0xff})))
	m.badRecord("long-tenant", "a tenant of 129 characters", replaced(fields, bytesField(4, bytes.Repeat([]byte("t"), 129))))
	m.badRecord("no-epoch", "no epoch", joinFields(slices.Delete(slices.Clone(fields), 1, 2)...))
	m.badRecord("no-kind", "no kind", joinFields(slices.DeleteFunc(slices.Clone(fields), func(f tlv) bool { return f.tag>>3 == 6 })...))
	m.badRecord("unknown-kind", "kind 99", replaced(fields, varintField(6, 99)))
	m.badRecord("cut", "the last byte is missing", good[:len(good)-1])
	m.badRecord("trailing-byte", "a byte stands after the end", append(bytes.Clone(good), 0))
	m.badRecord("empty", "no bytes", nil)
	m.badRecord("long-decision-id", "a decision id of 17 bytes", replaced(fields, bytesField(8, make([]byte, 17))))
	last := fields[len(fields)-2:]
	m.badRecord("commitments-out-of-order", "the paths of commitments descend", joinFields(append(slices.Clone(fields[:len(fields)-2]), last[1], last[0])...))
	m.badRecord("commitment-twice", "two commitments have one path", joinFields(append(slices.Clone(fields), last[1])...))
	short := joinFields(bytesField(1, []byte("arguments.iban")), bytesField(2, make([]byte, 31)))
	m.badRecord("short-commitment", "a commitment of 31 bytes", joinFields(append(slices.Clone(fields[:len(fields)-1]), bytesField(11, short))...))
	unknown := joinFields(bytesField(1, []byte("arguments.iban")), bytesField(2, make([]byte, 32)), varintField(3, 1))
	m.badRecord("commitment-unknown-field", "a commitment has a field 3", joinFields(append(slices.Clone(fields[:len(fields)-1]), bytesField(11, unknown))...))
	m.badRecord("body-unknown-field", "the body has a field 99", replaced(fields, bytesField(10, joinFields(varintField(1, 1), varintField(99, 1)))), "needs", "bodies")
	m.badRecord("body-out-of-order", "the body's fields descend", replaced(fields, bytesField(10, joinFields(bytesField(4, []byte("t")), varintField(1, 1)))), "needs", "bodies")
}

// segmentMaker puts a segment together.
type segmentMaker struct {
	*kitMaker
	raw    []byte
	tree   tree
	starts []int // of frames
}

// segment begins a segment after so many records of some ledger.
func (m *kitMaker) segment(first uint64) *segmentMaker {
	s := &segmentMaker{kitMaker: m}
	for i := range first {
		s.tree.append(m.l.hasher.leaf(m.record(entries()[10], i)))
	}
	s.header(header{epoch: 1, first: first, origin: kitOrigin, hashes: s.tree.hashes()})
	return s
}

func (s *segmentMaker) header(h header) {
	s.starts = append(s.starts, len(s.raw))
	s.raw = h.append(s.raw)
}

// frame adds any frame.
func (s *segmentMaker) frame(kind byte, payload []byte) *segmentMaker {
	s.starts = append(s.starts, len(s.raw))
	start := len(s.raw)
	s.raw = append(beginFrame(s.raw, kind), payload...)
	endFrame(s.raw, start)
	return s
}

// records adds n records, of the kinds in turn.
func (s *segmentMaker) records(n int) *segmentMaker {
	all := entries()
	for range n {
		s.rawRecord(s.record(all[s.tree.size%uint64(len(all))], s.tree.size))
	}
	return s
}

func (s *segmentMaker) rawRecord(raw []byte) *segmentMaker {
	s.tree.append(s.l.hasher.leaf(raw))
	return s.frame(frameRecord, raw)
}

func (s *segmentMaker) head() *segmentMaker {
	return s.signed(Head{Origin: kitOrigin, Size: s.tree.size, Root: s.tree.root()}, s.l.id.signer)
}

func (s *segmentMaker) signed(h Head, by note.Signer) *segmentMaker {
	s.t.Helper()
	s.starts = append(s.starts, len(s.raw))
	var err error
	if s.raw, err = appendHead(s.raw, h, by); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func (s *segmentMaker) seal() *segmentMaker {
	s.starts = append(s.starts, len(s.raw))
	s.raw = appendSeal(s.raw, s.tree.size, s.tree.root())
	return s
}

// valid adds the segment as one that verifies, up to its last head.
func (s *segmentMaker) valid(name, comment string, records, heads int) {
	root := s.tree.root()
	s.add(name, comment, "segment", "valid", s.raw, "vkey", s.vkey, "records", strconv.Itoa(records), "heads", strconv.Itoa(heads),
		"size", strconv.FormatUint(s.tree.size, 10), "root", hex.EncodeToString(root[:]))
}

func (s *segmentMaker) bad(name, comment, class string) {
	s.add(name, comment, "segment", class, s.raw, "vkey", s.vkey)
}

func (m *kitMaker) segments() {
	m.segment(0).records(1).head().valid("valid-one", "one record under a head", 1, 1)
	m.segment(0).records(12).head().seal().valid("valid-sealed", "one record of each kind, one head, a seal", 12, 1)
	m.segment(0).records(3).head().records(1).head().records(7).head().valid("valid-batches", "three batches, each under its head", 11, 3)
	m.segment(5).records(2).head().valid("valid-later", "a segment that begins at 5: its compact range is of two hashes", 2, 1)
	m.segment(8).records(1).head().valid("valid-power", "a segment that begins at 8: its compact range is of one hash", 1, 1)
	s := m.segment(0).records(2).head()
	covered := s.tree
	s.records(1)
	s.tree = covered
	s.valid("valid-tail", "after the last head stands a record that nobody was answered for", 2, 1)
}

// batchOfTwo is what most bad segments are made of.
func (m *kitMaker) batchOfTwo() *segmentMaker { return m.segment(0).records(2).head() }

// flipped is b with one bit of one byte changed.
func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func (m *kitMaker) badFrames() {
	bad := func(name, comment string, change func(*segmentMaker)) {
		s := m.batchOfTwo()
		change(s)
		s.bad(name, comment, "frame")
	}
	bad("crc-length", "a bit of a record's length is changed", func(s *segmentMaker) { s.raw = flipped(s.raw, s.starts[1]) })
	bad("crc-sum", "a bit of a record's CRC is changed", func(s *segmentMaker) { s.raw = flipped(s.raw, s.starts[1]+4) })
	bad("crc-payload", "a bit of a record is changed", func(s *segmentMaker) { s.raw = flipped(s.raw, s.starts[1]+20) })
	bad("cut-prefix", "the segment ends in a frame's prefix", func(s *segmentMaker) { s.raw = s.raw[:s.starts[3]+4] })
	bad("cut-payload", "the segment ends in a head", func(s *segmentMaker) { s.raw = s.raw[:len(s.raw)-1] })
	bad("unknown-type", "a frame of type 4", func(s *segmentMaker) { s.frame(4, []byte{1}) })
	bad("empty-record", "a record of length 0", func(s *segmentMaker) { s.frame(frameRecord, nil) })
	bad("large-record", "a record of 65,536 bytes", func(s *segmentMaker) { s.frame(frameRecord, make([]byte, MaxRecordBytes+1)) })
	bad("short-head", "a head of 107 bytes", func(s *segmentMaker) { s.frame(frameHead, make([]byte, headBytes-1)) })
	bad("short-seal", "a seal of 39 bytes", func(s *segmentMaker) { s.frame(frameSeal, make([]byte, sealBytes-1)) })
	bad("empty", "no bytes", func(s *segmentMaker) { s.raw = nil })
}

func (m *kitMaker) badStructures() {
	bad := func(name, comment string, make func() *segmentMaker) { make().bad(name, comment, "structure") }
	with := func(h header) *segmentMaker {
		s := &segmentMaker{kitMaker: m}
		s.header(h)
		return s
	}
	bad("no-header", "the first frame is a record", func() *segmentMaker {
		s := m.batchOfTwo()
		s.raw = s.raw[s.starts[1]:]
		return s
	})
	bad("two-headers", "a second header follows", func() *segmentMaker {
		s := m.batchOfTwo()
		s.header(header{epoch: 1, first: 0, origin: kitOrigin})
		return s
	})
	bad("magic", "the header's magic is another", func() *segmentMaker {
		h := header{epoch: 1, origin: kitOrigin}.append(nil)
		return (&segmentMaker{kitMaker: m}).frame(frameHeader, flipped(h[prefixBytes:], 0))
	})
	bad("version", "the header is of version 0", func() *segmentMaker {
		h := header{epoch: 1, origin: kitOrigin}.append(nil)
		return (&segmentMaker{kitMaker: m}).frame(frameHeader, flipped(h[prefixBytes:], len(magic)))
	})
	bad("range-too-short", "a compact range of one hash where 5 needs two", func() *segmentMaker {
		return with(header{epoch: 1, first: 5, origin: kitOrigin, hashes: [][32]byte{{}}})
	})
	bad("epoch-zero", "the header is of epoch 0", func() *segmentMaker { return with(header{origin: kitOrigin}) })
	bad("other-origin", "the header is of another ledger", func() *segmentMaker { return with(header{epoch: 1, origin: "example.org/x"}) })
	bad("after-seal", "a record follows the seal", func() *segmentMaker { return m.batchOfTwo().seal().records(1) })
	bad("head-too-large", "a head of size 3 after two records", func() *segmentMaker {
		s := m.segment(0).records(2)
		return s.signed(Head{Origin: kitOrigin, Size: 3, Root: s.tree.root()}, m.l.id.signer)
	})
	bad("head-twice", "a head without a new record", func() *segmentMaker { return m.batchOfTwo().head() })
	bad("seal-without-head", "a seal over a record that no head covers", func() *segmentMaker { return m.batchOfTwo().records(1).seal() })
	bad("seal-root", "a seal with another root", func() *segmentMaker {
		s := m.batchOfTwo()
		s.raw = appendSeal(s.raw, 2, [32]byte{1})
		return s
	})
}

func (m *kitMaker) badContents() {
	all := entries()
	m.segment(0).rawRecord(m.record(all[0], 0)).rawRecord(m.record(all[1], 2)).head().bad("record-left-out", "record 1 is left out, and the tree is signed so", "record")
	m.segment(0).rawRecord(m.record(all[0], 0)).rawRecord(m.record(all[0], 0)).head().bad("record-twice", "record 0 stands twice, and the tree is signed so", "record")
	m.l.epoch = 2
	later := m.record(all[0], 0)
	m.l.epoch = 1
	m.segment(0).rawRecord(later).head().bad("record-epoch", "a record of epoch 2 in a segment of epoch 1", "record")
	m.segment(0).rawRecord(append(m.record(all[0], 0), joinFields(varintField(99, 1))...)).head().bad("record-not-canonical", "a record with an unknown field, and the tree is signed so", "record")

	s := m.segment(0)
	s.tree.append([32]byte{1})
	forged := s.tree.root()
	s = m.segment(0).records(1)
	s.signed(Head{Origin: kitOrigin, Size: 1, Root: forged}, m.l.id.signer).bad("head-root", "the root that is signed is not that of the records", "head")
	stranger, _, _ := kitKey(m.t, "example.org/stranger")
	s = m.segment(0).records(1)
	s.signed(Head{Origin: kitOrigin, Size: 1, Root: s.tree.root()}, stranger).bad("head-other-key", "the head names another key", "head")
	s = m.batchOfTwo()
	payload := flipped(s.raw[s.starts[3]+prefixBytes:], headBytes-1)
	s.raw = s.raw[:s.starts[3]]
	s.frame(frameHead, payload).bad("head-signature", "a bit of the signature is changed, and the CRC fits", "head")
	s = m.batchOfTwo()
	changed := flipped(m.record(all[1], 1), 60) // in the record's time
	s.raw = s.raw[:s.starts[2]]
	s.frame(frameRecord, changed)
	s.tree = tree{}
	s.tree.append(m.l.hasher.leaf(m.record(all[0], 0)))
	s.tree.append(m.l.hasher.leaf(m.record(all[1], 1)))
	s.head().bad("record-changed", "a record's time is changed, and the CRC fits", "head")
	s = m.segment(5).records(2).head()
	wrong := s.raw[s.starts[1]:]
	hashes := slices.Clone(m.segment(5).tree.hashes())
	hashes[0][0] ^= 1
	s = &segmentMaker{kitMaker: m}
	s.header(header{epoch: 1, first: 5, origin: kitOrigin, hashes: hashes})
	s.raw = append(s.raw, wrong...)
	s.bad("range-changed", "the compact range in the header is another", "head")
}

func (m *kitMaker) checkpoints() {
	s := m.batchOfTwo()
	head := Head{Origin: kitOrigin, Size: 2, Root: s.tree.root()}
	signed, err := SignHead(head, m.l.id.signer)
	if err != nil {
		m.t.Fatal(err)
	}
	expanded := expandHead(s.raw[s.starts[3]+prefixBytes:], head)
	if !bytes.Equal(expanded, signed) {
		m.t.Fatalf("a head frame expands to %q, want %q", expanded, signed)
	}
	good := []string{"origin", kitOrigin, "size", "2", "root", hex.EncodeToString(head.Root[:])}
	m.add("valid", "the note that the head of segment-valid-sealed's first two records expands to", "checkpoint", "valid", signed, append([]string{"vkey", m.vkey}, good...)...)
	collector, _, collectorKey := kitKey(m.t, "example.org/collector")
	receipt, err := SignHead(head, collector)
	if err != nil {
		m.t.Fatal(err)
	}
	m.add("valid-acknowledgement", "a collector's acknowledgement: its own key signs the agent's head", "checkpoint", "valid", receipt, append([]string{"vkey", collectorKey}, good...)...)
	both, err := note.Sign(&note.Note{Text: string(head.AppendText(nil))}, m.l.id.signer, collector)
	if err != nil {
		m.t.Fatal(err)
	}
	m.add("valid-two-signatures", "a signature that the reader does not know stands beside the one it knows", "checkpoint", "valid", both, append([]string{"vkey", m.vkey}, good...)...)
	m.add("other-key", "only a collector signed, and the agent is asked for", "checkpoint", "head", receipt, "vkey", m.vkey)
	m.add("signature-changed", "a bit of the signature is changed", "checkpoint", "head", flipped(signed, len(signed)-8), "vkey", m.vkey)
	m.add("no-signature", "no signature", "checkpoint", "head", head.AppendText(nil), "vkey", m.vkey)
	root := strings.Split(string(signed), "\n")[2]
	for _, bad := range []struct{ name, comment, text string }{
		{"extension", "an extension line", kitOrigin + "\n2\n" + root + "\nmore\n"},
		{"leading-zero", "a size with a leading zero", kitOrigin + "\n02\n" + root + "\n"},
		{"signed-size", "a size with a sign", kitOrigin + "\n+2\n" + root + "\n"},
		{"size-too-large", "a size of 65 bits", kitOrigin + "\n18446744073709551616\n" + root + "\n"},
		{"short-root", "a root of 31 bytes", kitOrigin + "\n2\n" + strings.Repeat("A", 40) + "AA==\n"},
		{"root-spelling", "a root whose last bits, which say nothing, are not 0", kitOrigin + "\n2\n" + strings.Repeat("A", 42) + "B=\n"},
		{"no-origin", "no origin", "\n2\n" + root + "\n"},
		{"two-lines", "no root", kitOrigin + "\n2\n"},
	} {
		signed, err := note.Sign(&note.Note{Text: bad.text}, m.l.id.signer)
		if err != nil {
			m.t.Fatal(err)
		}
		m.add(bad.name, bad.comment+", rightly signed", "checkpoint", "head", signed, "vkey", m.vkey)
	}
}

// receipts makes the receipts of a batch of five after three records.
func (m *kitMaker) receipts() {
	s := m.segment(3).records(5).head()
	before := m.segment(3).tree
	b := &batch{origin: kitOrigin, first: 3, before: before.hashes(), root: s.tree.root(), frames: s.raw[s.starts[1]:]}
	for _, start := range s.starts[1:] {
		b.starts = append(b.starts, start-s.starts[1])
	}
	for i := range 5 {
		b.leaves = append(b.leaves, m.l.hasher.leaf(b.record(i)))
	}
	root := hex.EncodeToString(b.root[:])
	receipt := func(slot int) []byte {
		out, err := Position{Index: b.first + uint64(slot), Recorded: true, in: b, slot: slot}.Receipt() //nolint:gosec // small
		if err != nil {
			m.t.Fatal(err)
		}
		return out
	}
	for slot := range 5 {
		m.add(fmt.Sprintf("valid-%d", slot), fmt.Sprintf("record %d in the tree of 8", 3+slot), "receipt", "valid", receipt(slot),
			"vkey", m.vkey, "index", strconv.Itoa(3+slot), "size", "8", "root", root)
	}
	good := receipt(1)
	size := len(receiptMagic) + 4 + len(b.record(1))
	bad := func(name, comment string, raw []byte) {
		m.add(name, comment, "receipt", "receipt", raw, "vkey", m.vkey)
	}
	bad("magic", "another first line", flipped(good, 0))
	bad("path", "a bit of the path is changed", flipped(good, size+1))
	bad("record", "a bit of the record is changed", flipped(good, size-1))
	bad("length", "the record's length is more than there is", flipped(good, len(receiptMagic)+3))
	bad("path-left-out", "the path is a hash short", slices.Concat(good[:size], []byte{good[size] - 1}, good[size+1:size+1+32*(int(good[size])-1)], good[size+1+32*int(good[size]):]))
	other := bytes.Clone(receipt(2))
	bad("other-record", "the path of one record under another", slices.Concat(good[:size], other[len(receiptMagic)+4+len(b.record(2)):]))
	bad("trailing", "a line after the note", append(bytes.Clone(good), "x\n"...))
	collector, _, _ := kitKey(m.t, "example.org/collector")
	twice, err := note.Sign(&note.Note{Text: string(Head{Origin: kitOrigin, Size: 8, Root: b.root}.AppendText(nil))}, m.l.id.signer, collector)
	if err != nil {
		m.t.Fatal(err)
	}
	bad("two-signatures", "a second signature: a receipt has one form", slices.Concat(good[:size+1+32*int(good[size])], twice))
}

func (m *kitMaker) commitments() {
	for i, value := range []string{`"DE02"`, ``, `{"a":1}`} {
		path, index := "arguments.iban", uint64(i)<<40 //nolint:gosec // small
		salt, err := Salt(m.l.id.commitKey, m.l.id.logID, index, path)
		if err != nil {
			m.t.Fatal(err)
		}
		m.add(fmt.Sprintf("valid-%d", i), "a value, its salt and its commitment", "commitment", "valid", []byte(value),
			"origin", kitOrigin, "index", strconv.FormatUint(index, 10), "commit-key", hex.EncodeToString(m.l.id.commitKey), "path", path,
			"salt", hex.EncodeToString(salt), "digest", hex.EncodeToString(Commit(salt, m.l.id.logID, path, []byte(value))))
	}
}

// logEntries makes entries of a collector's log.
func (m *kitMaker) logEntries() {
	s := m.batchOfTwo()
	head, err := SignHead(Head{Origin: kitOrigin, Size: 2, Root: s.tree.root()}, m.l.id.signer)
	if err != nil {
		m.t.Fatal(err)
	}
	encode := func(e *writv1.LogEntry) []byte {
		e.TimeUnixNs = uint64(kitTime.UnixNano()) //nolint:gosec // after 1970
		raw, err := canonical.Marshal(e)
		if err != nil {
			m.t.Fatal(err)
		}
		return raw
	}
	taken := encode(&writv1.LogEntry{What: &writv1.LogEntry_Head{Head: head}})
	refused := encode(&writv1.LogEntry{What: &writv1.LogEntry_Finding{Finding: &writv1.LedgerFinding{
		Origin: kitOrigin, Kind: "fork", Detail: "two trees of size 2", HeldSize: 2, HeldRoot: bytes.Repeat([]byte{1}, 32), HeldHead: head, Head: head,
	}}})
	for name, raw := range map[string][]byte{"head": taken, "finding": refused} {
		leaf := m.l.hasher.leaf(raw)
		m.add("valid-"+name, "an entry of a collector's log: a "+name, "entry", "valid", raw, "leaf", hex.EncodeToString(leaf[:]))
	}
	bad := func(name, comment string, raw []byte) { m.add(name, comment, "entry", "entry", raw) }
	fields := splitFields(taken)
	bad("neither", "neither a head nor a finding", joinFields(fields[0]))
	bad("both", "a head and a finding", joinFields(append(slices.Clone(fields), splitFields(refused)[1])...))
	bad("unknown-field", "a field 4", joinFields(append(slices.Clone(fields), varintField(4, 1))...))
	bad("out-of-order", "the head stands before the time", joinFields(fields[1], fields[0]))
	bad("finding-unknown-field", "a finding with a field 8", joinFields(fields[0], bytesField(3, joinFields(bytesField(1, []byte("o")), varintField(8, 1)))))
}
