// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"errors"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// plan is what reading and writing a message needs, looked up once.
type plan struct {
	descriptor protoreflect.MessageDescriptor
	// byName has the fields by JSON name, inOrder by number.
	byName  map[string]*field
	inOrder []*field
	// guarded and bound say that a field here or below is sensitive, or bound to
	// the tenant; whether a walk is worth it.
	guarded, bound bool
}

// form is how a value stands in JSON beyond its kind.
type form int

const (
	formPlain form = iota
	formTimestamp
	formDuration
	formWrapper
)

// field is a field of a plan.
type field struct {
	descriptor protoreflect.FieldDescriptor
	kind       protoreflect.Kind
	form       form
	name       string
	// key is the name as a JSON text, with a colon.
	key []byte
	// message is the plan of a message, or of a map's message values.
	message *plan
	// mapKey and element are the key and the value of a map.
	mapKey, mapValue *field
	list             bool
	// implicit fields have no presence: the zero value is absence.
	implicit bool
	oneof    protoreflect.OneofDescriptor
	// names has the number of each name of an enum.
	names       map[string]protoreflect.EnumNumber
	sensitivity writv1.Sensitivity
	tenant      bool
}

// open are the well-known types that hold any JSON.
var open = []protoreflect.FullName{
	"google.protobuf.Any", "google.protobuf.Struct", "google.protobuf.Value",
	"google.protobuf.ListValue", "google.protobuf.FieldMask",
}

// wrappers are the messages that are their value.
var wrappers = []protoreflect.FullName{
	"google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int64Value",
	"google.protobuf.UInt64Value", "google.protobuf.Int32Value", "google.protobuf.UInt32Value",
	"google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
}

func formOf(message protoreflect.MessageDescriptor) form {
	switch {
	case message == nil:
		return formPlain
	case message.FullName() == "google.protobuf.Timestamp":
		return formTimestamp
	case message.FullName() == "google.protobuf.Duration":
		return formDuration
	case slices.Contains(wrappers, message.FullName()):
		return formWrapper
	}
	return formPlain
}

// plan returns the plan of a message and of all it holds. The error joins every
// reason why the profile cannot say it.
func (s *Set) plan(descriptor protoreflect.MessageDescriptor) (*plan, error) {
	if formOf(descriptor) != formPlain {
		return nil, errors.New(string(descriptor.FullName()) + " is not an object in JSON; put it into a field of a message of your own")
	}
	w := &planner{known: s.plans, made: make(map[protoreflect.FullName]*plan)}
	p := w.message(descriptor)
	if len(w.problems) > 0 {
		return nil, errors.Join(w.problems...)
	}
	spread(w.made)
	for name, made := range w.made {
		s.plans[name] = made
	}
	return p, nil
}

// spread marks the plans that hold guarded or bound ones, to the fixed point:
// messages may hold each other.
func spread(made map[protoreflect.FullName]*plan) {
	for changed := true; changed; {
		changed = false
		for _, p := range made {
			guarded, bound := p.guarded, p.bound
			for _, f := range p.inOrder {
				if f.message != nil {
					p.guarded = p.guarded || f.message.guarded
					p.bound = p.bound || f.message.bound
				}
			}
			changed = changed || guarded != p.guarded || bound != p.bound
		}
	}
}

// planner plans messages.
type planner struct {
	known, made map[protoreflect.FullName]*plan
	problems    []error
}

func (w *planner) refuse(at protoreflect.Descriptor, format string, args ...any) {
	w.problems = append(w.problems, At(at, format, args...))
}

func (w *planner) message(descriptor protoreflect.MessageDescriptor) *plan {
	name := descriptor.FullName()
	if p, ok := w.known[name]; ok {
		return p
	}
	if p, ok := w.made[name]; ok {
		return p
	}
	p := &plan{descriptor: descriptor, byName: make(map[string]*field)}
	w.made[name] = p
	if descriptor.ParentFile().Syntax() == protoreflect.Proto2 || descriptor.ExtensionRanges().Len() > 0 {
		w.refuse(descriptor, "message %s is proto2 or has extensions; a tool's messages are proto3, or an edition without them", name)
		return p
	}
	w.rules(descriptor, proto.GetExtension(descriptor.Options(), validate.E_Message).(*validate.MessageRules))
	for i := range descriptor.Oneofs().Len() {
		oneof := descriptor.Oneofs().Get(i)
		w.rules(oneof, proto.GetExtension(oneof.Options(), validate.E_Oneof).(*validate.OneofRules))
	}
	for i := range descriptor.Fields().Len() {
		w.add(p, descriptor.Fields().Get(i))
	}
	slices.SortFunc(p.inOrder, func(a, b *field) int { return int(a.descriptor.Number()) - int(b.descriptor.Number()) })
	return p
}

// add plans a field of p.
func (w *planner) add(p *plan, descriptor protoreflect.FieldDescriptor) {
	f := w.field(descriptor)
	if other, taken := p.byName[f.name]; taken {
		w.refuse(descriptor, "fields %s and %s have the same JSON name %q", other.descriptor.Name(), descriptor.Name(), f.name)
	}
	p.byName[f.name], p.inOrder = f, append(p.inOrder, f)
	w.rules(descriptor, proto.GetExtension(descriptor.Options(), validate.E_Field).(*validate.FieldRules))
	w.policy(f, proto.GetExtension(descriptor.Options(), writv1.E_Field).(*writv1.FieldPolicy))
	p.guarded = p.guarded || f.sensitivity != 0
	p.bound = p.bound || f.tenant
	if path, found := writtenDefault(descriptor); found {
		w.refuse(descriptor, "json_name %q of %s is what protobuf derives by itself, and a descriptor does not tell the two apart; name the field so, or leave it out",
			path, descriptor.Name())
	}
}

// policy takes over the field's options, where its type allows them.
func (w *planner) policy(f *field, policy *writv1.FieldPolicy) {
	f.sensitivity = policy.GetSensitivity()
	f.tenant = policy.GetBinding() == writv1.Binding_BINDING_TENANT
	text := f.kind == protoreflect.StringKind && f.mapKey == nil
	if f.sensitivity > writv1.Sensitivity_SENSITIVITY_HASH || f.sensitivity < 0 || policy.GetBinding() > writv1.Binding_BINDING_TENANT || policy.GetBinding() < 0 {
		w.refuse(f.descriptor, "field %s has an option (writ.v1.field) that is not known here", f.descriptor.Name())
	}
	if f.sensitivity == writv1.Sensitivity_SENSITIVITY_HASH && !text {
		w.refuse(f.descriptor, "field %s is not a string; SENSITIVITY_HASH is for strings, take SENSITIVITY_REDACT", f.descriptor.Name())
	}
	if f.tenant && !text {
		w.refuse(f.descriptor, "field %s is not a string, and is bound to the tenant", f.descriptor.Name())
	}
}

// rules refuses rules that the linked protovalidate does not know: predefined
// ones, and those of a later version. They would not hold.
func (w *planner) rules(at protoreflect.Descriptor, rules proto.Message) {
	if hasUnknown(rules.ProtoReflect()) {
		w.refuse(at, "%s has a predefined rule, or one that this version does not know; write it as (buf.validate) rules or cel", at.Name())
	}
}

func hasUnknown(m protoreflect.Message) bool {
	unknown := len(m.GetUnknown()) > 0
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				unknown = unknown || hasUnknown(v.List().Get(i).Message())
			}
		default:
			unknown = unknown || hasUnknown(v.Message())
		}
		return !unknown
	})
	return unknown
}

// field plans a field, or the key or value of a map.
func (w *planner) field(descriptor protoreflect.FieldDescriptor) *field {
	f := &field{
		descriptor: descriptor,
		kind:       descriptor.Kind(),
		name:       JSONName(descriptor),
		list:       descriptor.IsList(),
		implicit:   !descriptor.HasPresence() && descriptor.Cardinality() != protoreflect.Repeated,
	}
	f.key = append(appendText(nil, f.name), ':')
	if oneof := descriptor.ContainingOneof(); oneof != nil && !oneof.IsSynthetic() {
		f.oneof = oneof
	}
	switch {
	case descriptor.IsMap():
		f.mapKey, f.mapValue = w.field(descriptor.MapKey()), w.field(descriptor.MapValue())
		f.message = f.mapValue.message
	case f.kind == protoreflect.GroupKind || descriptor.Cardinality() == protoreflect.Required || descriptor.HasDefault():
		w.refuse(descriptor, "field %s is a group, required or has a default; the JSON profile has none of them", descriptor.Name())
	case f.kind == protoreflect.EnumKind:
		w.enum(f)
	case f.kind == protoreflect.MessageKind:
		w.held(f)
	}
	return f
}

// held plans the message that a field holds.
func (w *planner) held(f *field) {
	message := f.descriptor.Message()
	if slices.Contains(open, message.FullName()) {
		w.refuse(f.descriptor, "field %s holds a %s, which has no type; declare a message", f.descriptor.Name(), message.FullName())
		return
	}
	f.form = formOf(message)
	if f.form == formWrapper {
		f.mapValue = w.field(message.Fields().ByName("value"))
		return
	}
	if f.form == formPlain {
		f.message = w.message(message)
	}
}

func (w *planner) enum(f *field) {
	enum := f.descriptor.Enum()
	if enum.FullName() == "google.protobuf.NullValue" {
		w.refuse(f.descriptor, "field %s is a NullValue; the JSON profile has no null", f.descriptor.Name())
	}
	f.names = make(map[string]protoreflect.EnumNumber, enum.Values().Len())
	for i := range enum.Values().Len() {
		value := enum.Values().Get(i)
		// Of several names of one number the first stands, as in what is written.
		if enum.Values().ByNumber(value.Number()).Name() == value.Name() {
			f.names[string(value.Name())] = value.Number()
		}
	}
}

// JSONName returns the one name of a field in JSON: its json_name where that is
// not the one that protobuf derives by itself, else its name as written.
func JSONName(descriptor protoreflect.FieldDescriptor) string {
	name := string(descriptor.Name())
	if given := descriptor.JSONName(); descriptor.HasJSONName() && given != derived(name) {
		return given
	}
	return name
}

// derived is the json_name that every compiler sets when there is none.
func derived(name string) string {
	var b strings.Builder
	upper := false
	for i := range len(name) {
		c := name[i]
		if c == '_' {
			upper = true
			continue
		}
		if upper && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper = false
		b.WriteByte(c)
	}
	return b.String()
}

// jsonNameNumber is the number of FieldDescriptorProto.json_name.
const jsonNameNumber = 10

// writtenDefault returns a json_name that stands in the source and says what
// protobuf derives anyway, where that differs from the name.
func writtenDefault(descriptor protoreflect.FieldDescriptor) (string, bool) {
	name := string(descriptor.Name())
	if derived(name) == name || descriptor.JSONName() != derived(name) {
		return "", false
	}
	locations := descriptor.ParentFile().SourceLocations()
	at := locations.ByDescriptor(descriptor)
	if at.Path == nil {
		return "", false
	}
	written := locations.ByPath(append(slices.Clone(at.Path), jsonNameNumber))
	return descriptor.JSONName(), written.Path != nil
}
