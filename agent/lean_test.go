// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/workflows"
)

// The test is of the package's own: what the fold reads of a decision has no name
// outside, and a field that it came to read later and that is left out would be
// missed only after a restart.
func TestTheFoldReadsOfALeanDecisionWhatItReadsOfAWholeOne(t *testing.T) {
	t.Parallel()
	for _, verdict := range []writv1.Verdict{writv1.Verdict_VERDICT_ALLOW, writv1.Verdict_VERDICT_DENY, writv1.Verdict_VERDICT_NEEDS_APPROVAL} {
		t.Run(verdict.String(), func(t *testing.T) {
			t.Parallel()
			whole := &writv1.DecisionRecord{}
			fillAll(whole.ProtoReflect(), 6)
			whole.Decision.Verdict = verdict
			whole.Decision.Checks[0].Reason = writv1.Reason_REASON_APPROVAL_REQUIRED
			raw, err := canonical.Marshal(whole)
			if err != nil {
				t.Fatal(err)
			}
			text, err := (&lean{}).body(raw)
			if err != nil {
				t.Fatal(err)
			}
			left := &writv1.DecisionRecord{}
			if err := proto.Unmarshal(text, left); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(readOf(whole), readOf(left), protocmp.Transform()); diff != "" {
				t.Errorf("(-whole +lean):\n%s", diff)
			}
			if asks := verdict == writv1.Verdict_VERDICT_NEEDS_APPROVAL; asks != (len(text) == len(raw)) {
				t.Errorf("%d of %d bytes are read", len(text), len(raw))
			}
		})
	}
}

// readOf is all that foldDecision reads of a body.
func readOf(body *writv1.DecisionRecord) []any {
	record := &writv1.Record{DecisionId: make([]byte, 16), Tenant: "acme"}
	decided, consumed := decidedOf(record, body), ""
	if id, ok := consumedBy(body.GetDecision()); ok {
		consumed = id.String()
	}
	in := workflows.DecidedOf(workflows.Session(body.GetSession()), [16]byte{}, body.GetTool(), body.GetToolEffect(), body.GetFacts(), body.GetDecision())
	return []any{
		body.GetSession(), decided.Session, decided.Time, decided.Tool, decided.Effect, decided.Verdict, decided.Kept, decided.Owner,
		subjectOf(record.GetDecisionId(), body), body.GetDecision().GetVerdict(), consumed, body.GetFacts(), body.GetIdempotencyDigest(),
		body.GetIdentity(), reserves(body.GetDecision()), in.Advance, in.Tool, in.Effect, in.After,
	}
}

// fillAll sets every field of a message to something; of a oneof the first comes last.
func fillAll(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := fields.Len() - 1; i >= 0; i-- {
		field := fields.Get(i)
		switch {
		case field.Message() != nil && depth == 0 || field.IsMap():
		case field.IsList():
			list := m.Mutable(field).List()
			if field.Message() == nil {
				list.Append(something(field))
				continue
			}
			// One for each member of a oneof: effects of every kind.
			for n := range max(1, len(variants(field.Message()))) {
				element := list.NewElement()
				fillAll(element.Message(), depth-1)
				if kinds := variants(field.Message()); len(kinds) > 0 {
					fillAll(element.Message().Mutable(kinds[n]).Message(), depth-2)
				}
				list.Append(element)
			}
		case field.Message() != nil:
			fillAll(m.Mutable(field).Message(), depth-1)
		default:
			m.Set(field, something(field))
		}
	}
}

// variants are the messages of the first oneof.
func variants(message protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if message.Oneofs().Len() == 0 || message.Oneofs().Get(0).IsSynthetic() {
		return nil
	}
	var found []protoreflect.FieldDescriptor
	members := message.Oneofs().Get(0).Fields()
	for i := range members.Len() {
		if members.Get(i).Message() != nil {
			found = append(found, members.Get(i))
		}
	}
	return found
}

func something(field protoreflect.FieldDescriptor) protoreflect.Value {
	const id = "0123456789abcdef0123456789abcdef"
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(3)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(3)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(3)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(3)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(3)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(id)
	default:
		return protoreflect.ValueOfBytes([]byte(id)[:16])
	}
}

func TestABodyThatIsCutShortIsNoDecision(t *testing.T) {
	t.Parallel()
	whole := &writv1.DecisionRecord{}
	fillAll(whole.ProtoReflect(), 3)
	raw, err := canonical.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&lean{}).body(raw[:len(raw)-1]); err == nil {
		t.Error("a body without its last byte is read")
	}
	inner := protowire.AppendBytes(protowire.AppendTag(nil, recordDecision, protowire.BytesType), []byte{8})
	if _, err := (&lean{}).body(inner); err == nil {
		t.Error("a decision that ends in a tag is read")
	}
}
