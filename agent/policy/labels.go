// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// valuesValue is the values of the call, of which provenance() asks.
type valuesValue struct {
	opaque
	evaluation *evaluation
}

// of returns the provenance of a value: of all leaves of it.
func (v valuesValue) of(value ref.Val) ref.Val {
	out := provenanceValue{opaque: opaque{provenanceType}, now: v.evaluation.now}
	if err := v.collect(&out, value, 0); err != nil {
		return types.WrapErr(err)
	}
	return out
}

const deepest = 16

func (v valuesValue) collect(out *provenanceValue, value ref.Val, depth int) error {
	if depth > deepest {
		return errors.New("the value is nested too deeply")
	}
	if text, ok := plainText(value); ok {
		out.labels = append(out.labels, v.evaluation.labelOf(text))
		return nil
	}
	switch value := value.(type) {
	case types.Bool, types.Null:
		return nil
	case traits.Lister:
		for it := value.Iterator(); it.HasNext() == types.True; {
			if err := v.collect(out, it.Next(), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if message, ok := value.Value().(proto.Message); ok {
		return v.message(out, message.ProtoReflect(), depth)
	}
	out.labels = append(out.labels, nil)
	return nil
}

func (v valuesValue) message(out *provenanceValue, message protoreflect.Message, depth int) error {
	var err error
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Kind() == protoreflect.EnumKind || field.Kind() == protoreflect.BoolKind {
			return true
		}
		if field.IsMap() {
			out.labels = append(out.labels, nil)
			return true
		}
		err = v.collect(out, v.evaluation.bundle.adapter.NativeToValue(value.Interface()), depth+1)
		return err == nil
	})
	return err
}

// labelOf returns what is known of a value of the arguments; nil where nothing is.
func (e *evaluation) labelOf(text string) *writv1.ValueProvenance {
	for i := range e.leaves {
		if e.leaves[i].Text == text && !e.leaves[i].Bool {
			return e.labels[e.leaves[i].Path]
		}
	}
	return nil
}

// provenanceValue is where a value came from: the labels of its leaves, nil where
// nothing is known. A value without leaves meets whatever is asked.
type provenanceValue struct {
	opaque
	labels []*writv1.ValueProvenance
	now    time.Time
}

func (p provenanceValue) all(holds func(*writv1.ValueProvenance) bool) bool {
	return !slices.ContainsFunc(p.labels, func(l *writv1.ValueProvenance) bool { return l == nil || !holds(l) })
}

func trustedLabel(l *writv1.ValueProvenance) bool {
	return l.GetTrust() == writv1.Trust_TRUST_TRUSTED
}

func (p provenanceValue) known() bool {
	return p.all(func(*writv1.ValueProvenance) bool { return true })
}

func (p provenanceValue) trusted() bool { return p.all(trustedLabel) }

// untrusted says whether some leaf is known, and only from untrusted sources.
func (p provenanceValue) untrusted() bool {
	return slices.ContainsFunc(p.labels, func(l *writv1.ValueProvenance) bool { return l != nil && !trustedLabel(l) })
}

func (p provenanceValue) ofRequest() bool {
	return p.all(func(l *writv1.ValueProvenance) bool { return trustedLabel(l) && (l.GetOfRequest() || saidByUser(l)) })
}

func (p provenanceValue) from(source string) bool {
	return p.all(func(l *writv1.ValueProvenance) bool { return slices.Contains(l.GetSources(), source) })
}

func (p provenanceValue) within(window time.Duration) bool {
	return p.all(func(l *writv1.ValueProvenance) bool {
		return trustedLabel(l) && p.now.Sub(l.GetTrustedTime().AsTime()) <= window
	})
}

// beside says whether one object of a trusted lookup holds both values. What the
// user said belongs to anything.
func (p provenanceValue) beside(other provenanceValue) bool {
	all := slices.Concat(p.labels, other.labels)
	var common []uint32
	first := true
	for _, l := range all {
		switch {
		case l == nil:
			return false
		case saidByUser(l):
		case first:
			common, first = slices.Clone(l.GetObjects()), false
		default:
			common = slices.DeleteFunc(common, func(o uint32) bool { return !slices.Contains(l.GetObjects(), o) })
		}
	}
	return first || len(common) > 0
}

func (p provenanceValue) sources() []string {
	found := []string{}
	for _, l := range p.labels {
		found = append(found, l.GetSources()...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}
