// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"slices"
	"strconv"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A schema says a rule only where JSON Schema means the same by it: what it
// accepts may still break a rule, and what it refuses is refused.

func fieldRules(descriptor protoreflect.FieldDescriptor) *validate.FieldRules {
	return proto.GetExtension(descriptor.Options(), validate.E_Field).(*validate.FieldRules)
}

// lenient reports whether the zero value passes whatever the rules say.
func (f *field) lenient(rules *validate.FieldRules) bool {
	return rules.GetIgnore() != validate.Ignore_IGNORE_UNSPECIFIED
}

// mustBeGiven reports whether a message without the field always breaks a rule.
func (f *field) mustBeGiven() bool {
	rules := fieldRules(f.descriptor)
	if rules.GetIgnore() == validate.Ignore_IGNORE_ALWAYS {
		return false
	}
	if rules.GetRequired() {
		return true
	}
	return !f.lenient(rules) && (rules.GetRepeated().GetMinItems() > 0 || rules.GetMap().GetMinPairs() > 0 ||
		f.implicit && rules.GetString().GetMinLen() > 0)
}

// constrain prints the rules of one value.
func (n *node) constrain(f *field, rules *validate.FieldRules) {
	if rules == nil || f.message != nil || f.lenient(rules) {
		return
	}
	if f.form == formWrapper {
		f = f.mapValue
	}
	switch f.kind {
	case protoreflect.StringKind:
		n.stringRules(rules.GetString())
	case protoreflect.EnumKind:
		n.put("enum", texts(f.enumNames(rules.GetEnum())))
	case protoreflect.MessageKind, protoreflect.BytesKind, protoreflect.BoolKind:
	default:
		n.numberRules(rules)
	}
}

// enumNames returns the names that may be given, in the order of declaration.
func (f *field) enumNames(rules *validate.EnumRules) []string {
	names := make([]string, 0, len(f.names))
	for i := range f.descriptor.Enum().Values().Len() {
		value := f.descriptor.Enum().Values().Get(i)
		number := int32(value.Number())
		refused := slices.Contains(rules.GetNotIn(), number) ||
			len(rules.GetIn()) > 0 && !slices.Contains(rules.GetIn(), number) ||
			rules != nil && rules.Const != nil && rules.GetConst() != number
		if _, first := f.names[string(value.Name())]; first && !refused {
			names = append(names, string(value.Name()))
		}
	}
	return names
}

// formats are the names that JSON Schema has for kinds of text.
var formats = map[protoreflect.Name]string{
	"email": "email", "hostname": "hostname", "ipv4": "ipv4", "ipv6": "ipv6",
	"uri": "uri", "uri_ref": "uri-reference", "uuid": "uuid",
}

// stringRules prints the rules of a string. Lengths are in code points on both
// sides.
func (n *node) stringRules(rules *validate.StringRules) {
	if rules == nil {
		return
	}
	least, most := rules.MinLen, rules.MaxLen
	if rules.Len != nil {
		least, most = rules.Len, rules.Len
	}
	n.count("minLength", least)
	n.count("maxLength", most)
	if rules.Pattern != nil {
		n.text("pattern", rules.GetPattern())
	}
	if rules.Const != nil {
		n.text("const", rules.GetConst())
	}
	if len(rules.GetIn()) > 0 {
		n.put("enum", texts(rules.GetIn()))
	}
	if set := rules.ProtoReflect().WhichOneof(rules.ProtoReflect().Descriptor().Oneofs().ByName("well_known")); set != nil {
		if format, ok := formats[set.Name()]; ok {
			n.text("format", format)
		}
	}
}

func (n *node) count(key string, value *uint64) {
	if value != nil {
		n.put(key, strconv.AppendUint(nil, *value, 10))
	}
}

// numberRules prints bounds. Those whose lower one is above the upper one mean
// "outside", which the keywords cannot say.
func (n *node) numberRules(rules *validate.FieldRules) {
	kind := rules.ProtoReflect().WhichOneof(rules.ProtoReflect().Descriptor().Oneofs().ByName("type"))
	if kind == nil || kind.Message() == nil {
		return
	}
	typed := rules.ProtoReflect().Get(kind).Message()
	given := func(name protoreflect.Name) (protoreflect.Value, bool) {
		field := typed.Descriptor().Fields().ByName(name)
		if field == nil || !typed.Has(field) {
			return protoreflect.Value{}, false
		}
		return typed.Get(field), true
	}
	if outside(given) {
		return
	}
	if value, ok := given("gte"); ok {
		n.put("minimum", appendNumber(nil, value))
	}
	if value, ok := given("lte"); ok {
		n.put("maximum", appendNumber(nil, value))
	}
	if value, ok := given("gt"); ok {
		n.drop("minimum")
		n.put("exclusiveMinimum", appendNumber(nil, value))
	}
	if value, ok := given("lt"); ok {
		n.drop("maximum")
		n.put("exclusiveMaximum", appendNumber(nil, value))
	}
	if value, ok := given("const"); ok {
		n.put("const", appendNumber(nil, value))
	}
	if value, ok := given("in"); ok {
		out, first := []byte{'['}, true
		for i := range value.List().Len() {
			out = appendNumber(separate(out, &first), value.List().Get(i))
		}
		n.put("enum", append(out, ']'))
	}
}

// drop takes a keyword back.
func (n *node) drop(key string) {
	if i := slices.Index(n.keys, key); i >= 0 {
		n.keys, n.values = slices.Delete(n.keys, i, i+1), slices.Delete(n.values, i, i+1)
	}
}

// outside reports whether the bounds are those of a gap.
func outside(given func(protoreflect.Name) (protoreflect.Value, bool)) bool {
	for _, lower := range []protoreflect.Name{"gt", "gte"} {
		for _, upper := range []protoreflect.Name{"lt", "lte"} {
			low, hasLow := given(lower)
			high, hasHigh := given(upper)
			if hasLow && hasHigh && above(low, high) {
				return true
			}
		}
	}
	return false
}

func above(a, b protoreflect.Value) bool {
	switch a.Interface().(type) {
	case int32, int64:
		return a.Int() >= b.Int()
	case uint32, uint64:
		return a.Uint() >= b.Uint()
	case float32, float64:
		return a.Float() >= b.Float()
	}
	return true
}

func appendNumber(dst []byte, value protoreflect.Value) []byte {
	switch x := value.Interface().(type) {
	case float32:
		return appendFloat(dst, float64(x), 32)
	case float64:
		return appendFloat(dst, x, 64)
	default:
		return append(dst, value.String()...)
	}
}

// listRules prints the rules of an array. Equal values have one form, so unique
// means the same on both sides.
func (n *node) listRules(rules *validate.RepeatedRules) {
	if rules == nil {
		return
	}
	n.count("minItems", rules.MinItems)
	n.count("maxItems", rules.MaxItems)
	if rules.GetUnique() {
		n.put("uniqueItems", []byte("true"))
	}
}

// mapRules prints the rules of a map and the texts its keys may be.
func (n *node) mapRules(f *field, rules *validate.MapRules) {
	keys := &node{}
	switch f.mapKey.kind {
	case protoreflect.StringKind:
		keys.stringRules(rules.GetKeys().GetString())
	case protoreflect.BoolKind:
		keys.put("enum", texts([]string{"false", "true"}))
	default:
		keys.text("pattern", "^-?(0|[1-9][0-9]*)$")
	}
	if len(keys.keys) > 0 {
		n.put("propertyNames", keys.json())
	}
	if rules != nil {
		n.count("minProperties", rules.MinPairs)
		n.count("maxProperties", rules.MaxPairs)
	}
}

// oneofRules prints that of a oneof's fields at most one is given, or exactly one
// where it is required.
func oneofRules(p *plan) []byte {
	out, first := []byte{'['}, true
	for i := range p.descriptor.Oneofs().Len() {
		oneof := p.descriptor.Oneofs().Get(i)
		if oneof.IsSynthetic() {
			continue
		}
		rules := proto.GetExtension(oneof.Options(), validate.E_Oneof).(*validate.OneofRules)
		out = append(separate(out, &first), p.choice(oneof, rules.GetRequired())...)
	}
	if first {
		return nil
	}
	return append(out, ']')
}

func (p *plan) choice(oneof protoreflect.OneofDescriptor, required bool) []byte {
	out, first := []byte(`{"oneOf":[`), true
	none, noneFirst := []byte(`{"not":{"anyOf":[`), true
	for _, f := range p.inOrder {
		if f.oneof != oneof {
			continue
		}
		given := append(append([]byte(`{"required":`), texts([]string{f.name})...), '}')
		out = append(separate(out, &first), given...)
		none = append(separate(none, &noneFirst), given...)
	}
	if !required {
		out = append(append(separate(out, &first), none...), `]}}`...)
	}
	return append(out, `]}`...)
}
