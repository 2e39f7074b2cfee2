// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// DefaultTimeout is the whole time an execution may take when its tool does not say
// (ToolOptions.timeout in options.proto).
const DefaultTimeout = 30 * time.Second

// timeoutGrace is how much longer than its timeout an execution may be seen to take:
// stopping it takes time.
const timeoutGrace = time.Second

// dimensionsEnd is one more than the largest dimension.
const dimensionsEnd = int(writv1.Dimension_DIMENSION_BYTES_OUT) + 1

// meter tells how much a call of a tool takes of each dimension.
type meter struct {
	cost *writv1.ToolCost
	// fixed is the same for all calls, known what is known of all of them: by the
	// tool's options, or by its fields.
	fixed [dimensionsEnd]int64
	known [dimensionsEnd]bool
	// request and response are the fields that count; nil is none.
	request, response *metered
}

// metered are the fields of a message type that count, or that lead to some.
type metered struct {
	fields []meteredField
	below  []meteredBelow
}

type meteredField struct {
	field     protoreflect.FieldDescriptor
	dimension writv1.Dimension
	scale     int64
}

type meteredBelow struct {
	field   protoreflect.FieldDescriptor
	metered *metered
}

// uncounted says why it is not known how much a call takes.
type uncounted struct {
	reason         writv1.Reason
	field, message string
}

// newMeter returns the meter of a tool, and what is wrong with its options.
func newMeter(tool *tools.Tool) (m *meter, faults []string) {
	m = &meter{cost: tool.Options.GetCost()}
	note := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	m.request = meteredOf(tool.Request.Descriptor(), make(map[protoreflect.FullName]*metered), note)
	m.response = meteredOf(tool.Response.Descriptor(), make(map[protoreflect.FullName]*metered), note)
	m.set(writv1.Dimension_DIMENSION_CALLS, 1, true)
	m.set(writv1.Dimension_DIMENSION_BYTES_OUT, 0, true)
	writes := int64(0)
	if tool.Options.GetEffect() == writv1.ToolEffect_TOOL_EFFECT_WRITE {
		writes = 1
	}
	m.set(writv1.Dimension_DIMENSION_WRITES, writes, true)
	m.set(writv1.Dimension_DIMENSION_INPUT_TOKENS, m.cost.GetInputTokens(), m.cost != nil && m.cost.InputTokens != nil)
	m.set(writv1.Dimension_DIMENSION_OUTPUT_TOKENS, m.cost.GetOutputTokens(), m.cost != nil && m.cost.OutputTokens != nil)
	m.set(writv1.Dimension_DIMENSION_MONEY, m.cost.GetMoneyNanoDollars(), m.cost != nil && m.cost.MoneyNanoDollars != nil)
	if longest, ok := wallTime(tool); ok {
		m.set(writv1.Dimension_DIMENSION_WALL_TIME, milliseconds(longest), true)
	}
	m.knowFields(m.request, make(map[*metered]bool))
	m.prices(note)
	return m, faults
}

func (m *meter) set(d writv1.Dimension, fixed int64, known bool) {
	m.fixed[d], m.known[d] = fixed, known
}

// wallTime returns how long the tool may run at most, where anything bounds it.
func wallTime(tool *tools.Tool) (time.Duration, bool) {
	switch {
	case tool.Options.GetCost().GetWallTime() != nil:
		return tool.Options.GetCost().GetWallTime().AsDuration(), true
	case tool.Options.GetTimeout() != nil:
		return tool.Options.GetTimeout().AsDuration() + timeoutGrace, true
	case tool.Options.GetCommand() != nil || tool.Options.GetWeb() != nil:
		return DefaultTimeout + timeoutGrace, true
	default:
		return 0, false
	}
}

// milliseconds rounds up: what ran at all took one.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// knowFields notes what fields of the request tell.
func (m *meter) knowFields(of *metered, seen map[*metered]bool) {
	if of == nil || seen[of] {
		return
	}
	seen[of] = true
	for _, f := range of.fields {
		m.known[f.dimension] = true
	}
	for _, below := range of.below {
		m.knowFields(below.metered, seen)
	}
}

// prices holds the prices of tokens against what is known of tokens.
func (m *meter) prices(note func(string, ...any)) {
	price := func(set bool, of writv1.Dimension, name string) {
		if !set {
			return
		}
		m.known[writv1.Dimension_DIMENSION_MONEY] = true
		if !m.known[of] {
			note("a price of each %s token, and nothing that says how many there are at most", name)
		}
	}
	price(m.cost != nil && m.cost.InputTokenNanoDollars != nil, writv1.Dimension_DIMENSION_INPUT_TOKENS, "input")
	price(m.cost != nil && m.cost.OutputTokenNanoDollars != nil, writv1.Dimension_DIMENSION_OUTPUT_TOKENS, "output")
}

// meteredOf finds the fields of a message type that count; nil when there are none.
func meteredOf(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]*metered, note func(string, ...any)) *metered {
	if made, ok := seen[message.FullName()]; ok {
		return made
	}
	if !counts(message, make(map[protoreflect.FullName]bool)) {
		return nil
	}
	made := &metered{}
	seen[message.FullName()] = made
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if unit := fieldPolicy(field).GetBudget(); unit != nil {
			if field.IsMap() || !wholeNumber(field.Kind()) {
				note("%s, which cannot count against budgets: it is not a whole number", field.FullName())
				continue
			}
			made.fields = append(made.fields, meteredField{field: field, dimension: unit.GetDimension(), scale: max(1, unit.GetScale())})
			continue
		}
		of := field
		if field.IsMap() {
			of = field.MapValue()
		}
		if of.Message() == nil {
			continue
		}
		if below := meteredOf(of.Message(), seen, note); below != nil {
			made.below = append(made.below, meteredBelow{field: field, metered: below})
		}
	}
	return made
}

// counts says whether a message has a field that counts, at any depth.
func counts(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[message.FullName()] {
		return false
	}
	seen[message.FullName()] = true
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if fieldPolicy(field).GetBudget() != nil {
			return true
		}
		if field.IsMap() {
			field = field.MapValue()
		}
		if field.Message() != nil && counts(field.Message(), seen) {
			return true
		}
	}
	return false
}

func wholeNumber(kind protoreflect.Kind) bool {
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind,
		protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return true
	default:
		return false
	}
}

// tally is what the fields of a message add up to.
type tally struct {
	sums  [dimensionsEnd]int64
	found [dimensionsEnd]bool
	// faults say why a sum does not count.
	faults [dimensionsEnd]*uncounted
}

// add counts the fields of a message. A field that is not set says nothing: that is
// not taken for zero.
func (t *tally) add(m protoreflect.Message, of *metered, path string) {
	for _, f := range of.fields {
		switch {
		case f.field.IsList():
			t.found[f.dimension] = true
			for i := range m.Get(f.field).List().Len() {
				t.count(&f, m.Get(f.field).List().Get(i), path)
			}
		case m.Has(f.field):
			t.found[f.dimension] = true
			t.count(&f, m.Get(f.field), path)
		default:
			t.fault(&f, writv1.Reason_REASON_BUDGET_UNKNOWN, path, "say how much: a budget counts it")
		}
	}
	for _, below := range of.below {
		at := path + string(below.field.Name()) + "."
		switch {
		case below.field.IsList():
			list := m.Get(below.field).List()
			for i := range list.Len() {
				t.add(list.Get(i).Message(), below.metered, at)
			}
			t.empty(below.metered, list.Len())
		case below.field.IsMap():
			m.Get(below.field).Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				t.add(v.Message(), below.metered, at)
				return true
			})
			t.empty(below.metered, m.Get(below.field).Map().Len())
		case m.Has(below.field):
			t.add(m.Get(below.field).Message(), below.metered, at)
		}
	}
}

// empty notes that a list has nothing in it, and so takes nothing.
func (t *tally) empty(of *metered, length int) {
	if length > 0 {
		return
	}
	for _, f := range of.fields {
		t.found[f.dimension] = true
	}
}

func (t *tally) fault(f *meteredField, reason writv1.Reason, path, message string) {
	if t.faults[f.dimension] == nil {
		t.faults[f.dimension] = &uncounted{reason, path + string(f.field.Name()), message}
	}
}

func (t *tally) count(f *meteredField, v protoreflect.Value, path string) {
	var amount int64
	switch f.field.Kind() {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		amount = int64(min(v.Uint(), math.MaxInt64))
	default:
		amount = v.Int()
	}
	if amount < 0 {
		t.fault(f, writv1.Reason_REASON_BUDGET_UNKNOWN, path, "a budget counts it: it must not be negative")
		return
	}
	sum, ok := plusTimes(t.sums[f.dimension], amount, f.scale)
	if !ok {
		t.fault(f, writv1.Reason_REASON_BUDGET_TOO_MUCH, path, "it is more than a budget can count")
	}
	t.sums[f.dimension] = sum
}

// plusTimes returns sum + amount*scale, none of which is negative, and false where
// that is more than can be counted.
func plusTimes(sum, amount, scale int64) (int64, bool) {
	if scale > 0 && amount > (math.MaxInt64-sum)/scale {
		return math.MaxInt64, false
	}
	return sum + amount*scale, true
}

// amount returns how much of a dimension the call takes at most.
func (r *reading) amount(d writv1.Dimension) (int64, *uncounted) {
	m := r.entry.meter
	switch d {
	case writv1.Dimension_DIMENSION_CALLS, writv1.Dimension_DIMENSION_WRITES:
		return m.fixed[d], nil
	case writv1.Dimension_DIMENSION_BYTES_OUT:
		return int64(len(r.canonical)), nil
	}
	if r.counted == nil {
		r.counted = &tally{}
		if m.request != nil && r.typed != nil {
			r.counted.add(r.typed, m.request, "")
		}
	}
	if d == writv1.Dimension_DIMENSION_MONEY {
		return m.money(r.counted, m.worst)
	}
	return m.worst(r.counted, d)
}

// worst returns what options and fields say of a dimension.
func (m *meter) worst(t *tally, d writv1.Dimension) (int64, *uncounted) {
	if t.faults[d] != nil {
		return 0, t.faults[d]
	}
	if !t.found[d] && !m.constant(d) {
		return 0, &uncounted{writv1.Reason_REASON_BUDGET_UNKNOWN, "", "the arguments do not say how much the call takes, and a budget counts it"}
	}
	sum, ok := plusTimes(m.fixed[d], t.sums[d], 1)
	if !ok {
		return 0, tooMuch
	}
	return sum, nil
}

var tooMuch = &uncounted{writv1.Reason_REASON_BUDGET_TOO_MUCH, "", "the call takes more than a budget can count"}

// constant says whether the options alone tell of a dimension.
func (m *meter) constant(d writv1.Dimension) bool {
	switch d {
	case writv1.Dimension_DIMENSION_INPUT_TOKENS:
		return m.cost != nil && m.cost.InputTokens != nil
	case writv1.Dimension_DIMENSION_OUTPUT_TOKENS:
		return m.cost != nil && m.cost.OutputTokens != nil
	case writv1.Dimension_DIMENSION_MONEY:
		return m.cost != nil && (m.cost.MoneyNanoDollars != nil || m.cost.InputTokenNanoDollars != nil || m.cost.OutputTokenNanoDollars != nil)
	default:
		return m.fixed[d] > 0
	}
}

// money returns what the call costs: what options and fields say, and the tokens at
// their prices.
func (m *meter) money(t *tally, tokens func(*tally, writv1.Dimension) (int64, *uncounted)) (int64, *uncounted) {
	sum, unknown := m.worst(t, writv1.Dimension_DIMENSION_MONEY)
	if unknown != nil {
		return 0, unknown
	}
	for d, price := range [dimensionsEnd]int64{
		writv1.Dimension_DIMENSION_INPUT_TOKENS:  m.cost.GetInputTokenNanoDollars(),
		writv1.Dimension_DIMENSION_OUTPUT_TOKENS: m.cost.GetOutputTokenNanoDollars(),
	} {
		if price == 0 {
			continue
		}
		number, unknown := tokens(t, writv1.Dimension(d))
		if unknown != nil {
			return 0, unknown
		}
		var ok bool
		if sum, ok = plusTimes(sum, number, price); !ok {
			return 0, tooMuch
		}
	}
	return sum, nil
}
