// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var redaction = passing("data", "redaction")

// data says what may leave: what a sink may not carry out stays, and the sensitive
// fields of a response are redacted by whoever carries out the call. The check of the
// latter tells that the obligations were weighed.
func (e *evaluation) data() {
	e.sink()
	if len(e.entry.obligations) > 0 {
		e.pass(redaction)
	}
}

const (
	// mostObligations is the bound of Decision.obligations.
	mostObligations = 256
	// mostSteps bounds the walk over a response: messages that share parts have
	// exponentially many paths.
	mostSteps = 100_000
)

// redactions lists the sensitive fields below message, each by its path. A
// message that holds itself is followed once: [schemas.Message.Redact] redacts
// every level, and the path of the first stands for all. The second result is
// false when there are more paths than a decision can hold.
func redactions(message protoreflect.MessageDescriptor) ([]*writv1.Obligation, bool) {
	w := walk{entered: map[protoreflect.FullName]bool{}}
	w.message(message, "")
	return w.found, len(w.found) <= mostObligations && w.steps <= mostSteps
}

// walk collects obligations depth first, fields in the order of their numbers
// as the descriptor lists them.
type walk struct {
	entered map[protoreflect.FullName]bool
	found   []*writv1.Obligation
	steps   int
}

func (w *walk) message(message protoreflect.MessageDescriptor, prefix string) {
	w.steps++
	if w.entered[message.FullName()] || len(w.found) > mostObligations || w.steps > mostSteps {
		return
	}
	w.entered[message.FullName()] = true
	defer delete(w.entered, message.FullName())
	fields := message.Fields()
	for i := range fields.Len() {
		w.field(fields.Get(i), prefix)
	}
}

func (w *walk) field(field protoreflect.FieldDescriptor, prefix string) {
	path := prefix + string(field.Name())
	if sensitivity := fieldPolicy(field).GetSensitivity(); sensitivity != writv1.Sensitivity_SENSITIVITY_UNSPECIFIED {
		w.found = append(w.found, &writv1.Obligation{Obligation: &writv1.Obligation_RedactResponse{
			RedactResponse: &writv1.RedactResponse{Path: path, Sensitivity: sensitivity},
		}})
		return
	}
	inner := field
	if field.IsMap() {
		inner = field.MapValue()
	}
	if inner.Message() != nil {
		w.message(inner.Message(), path+".")
	}
}

// fieldPolicy returns the writ options of a field. Descriptors compiled at load
// may hold them as a message of another Go type, so they are read anew.
func fieldPolicy(field protoreflect.FieldDescriptor) *writv1.FieldPolicy {
	encoded, err := proto.Marshal(field.Options())
	if err != nil || len(encoded) == 0 {
		return nil
	}
	options := &descriptorpb.FieldOptions{}
	if err := proto.Unmarshal(encoded, options); err != nil {
		return nil
	}
	found, _ := proto.GetExtension(options, writv1.E_Field).(*writv1.FieldPolicy)
	return found
}
