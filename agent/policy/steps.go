// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
)

// opaque is what the values of our types have in common: they can be asked, and
// nothing else.
type opaque struct{ kind *cel.Type }

// ConvertToNative refuses.
func (o opaque) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("the value cannot be converted")
}

// ConvertToType gives the type itself alone.
func (o opaque) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return o.kind
	}
	return types.NewErr("the value cannot be converted")
}

// Equal refuses to compare.
func (o opaque) Equal(ref.Val) ref.Val { return types.NewErr("the value cannot be compared") }

// Type returns the type.
func (o opaque) Type() ref.Type { return o.kind }

// Value returns nothing.
func (o opaque) Value() any { return nil }

// sessionValue is the variable session.
type sessionValue struct {
	opaque
	*writv1.Facts
}

func (s sessionValue) called(tool string) ref.Val {
	out := stepsValue{opaque: opaque{stepsType}, now: s.GetTime().AsTime()}
	for _, step := range s.GetSession().GetSteps() {
		if step.GetTool() == tool {
			out.steps = append(out.steps, step)
		}
	}
	for _, of := range s.GetSession().GetStepCounts() {
		if of.GetTool() == tool {
			out.more = of.GetCount() - min(of.GetCount(), uint64(len(out.steps)))
		}
	}
	return out
}

// runValue is the variable run: the run that the session is in.
type runValue struct {
	opaque
	*writv1.Facts
}

// called returns the calls of the session since the run began.
func (r runValue) called(tool string) ref.Val {
	out := sessionValue{opaque{sessionType}, r.Facts}.called(tool).(stepsValue)
	begin := r.GetSession().GetRun().GetBeginTime().AsTime()
	return out.since(func(step *writv1.Step) bool { return !step.GetTime().AsTime().Before(begin) })
}

// stepsValue is earlier calls of a tool.
type stepsValue struct {
	opaque
	steps []*writv1.Step
	// more is how many there were besides, that are not kept.
	more uint64
	now  time.Time
	// narrowed says that the steps were chosen by what those that are not kept
	// cannot be asked.
	narrowed bool
}

var (
	errForgotten = errors.New("the session has forgotten calls that the condition asks for")
	errNoCall    = errors.New("there is no such call")
	errNoField   = errors.New("the call's field is not there, or too large to be kept")
)

// any says whether there is one. Where none is found among those that are kept and
// others are not, nothing can be said.
func (s stepsValue) any() ref.Val {
	switch {
	case len(s.steps) > 0:
		return types.True
	case s.more == 0:
		return types.False
	case s.narrowed:
		return types.WrapErr(errForgotten)
	default:
		return types.True
	}
}

func (s stepsValue) count() ref.Val {
	if s.narrowed && s.more > 0 {
		return types.WrapErr(errForgotten)
	}
	return types.Int(uint64(len(s.steps)) + s.more)
}

func (s stepsValue) filter(keep func(*writv1.Step) bool) ref.Val {
	out := s
	out.narrowed = true
	out.steps = nil
	for _, step := range s.steps {
		if keep(step) {
			out.steps = append(out.steps, step)
		}
	}
	return out
}

// within keeps those of the last while.
func (s stepsValue) within(window time.Duration) ref.Val {
	return s.since(func(step *writv1.Step) bool { return s.now.Sub(step.GetTime().AsTime()) <= window })
}

// since keeps those from some time on. Those that are not kept are older than all that
// are.
func (s stepsValue) since(in func(*writv1.Step) bool) ref.Val {
	out := s.filter(in).(stepsValue)
	if len(out.steps) < len(s.steps) {
		out.more = 0
	}
	return out
}

// latest returns a field of the latest call, in canonical JSON.
func (s stepsValue) latest(path string) (string, error) {
	if len(s.steps) == 0 {
		return "", errNoCall
	}
	for _, field := range s.steps[len(s.steps)-1].GetFields() {
		if field.GetPath() == path && field.GetValue() != "" {
			return field.GetValue(), nil
		}
	}
	return "", errNoField
}

func (s stepsValue) number(path string) ref.Val {
	text, err := s.latest(path)
	if err != nil {
		return types.WrapErr(err)
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return types.WrapErr(errNoField)
	}
	return types.Int(number)
}

func (s stepsValue) text(path string) ref.Val {
	text, err := s.latest(path)
	if err != nil {
		return types.WrapErr(err)
	}
	plain, err := atoms.Unquote(text)
	if err != nil {
		return types.WrapErr(errNoField)
	}
	return types.String(plain)
}

func (s stepsValue) flag(path string) ref.Val {
	text, err := s.latest(path)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Bool(text == "true")
}

// where keeps those whose field has the value. A field that was too large to be
// kept cannot be compared, nor can an argument that an earlier bundle did not ask for.
func (s stepsValue) where(path string, value ref.Val) ref.Val {
	want, ok := jsonText(value)
	if !ok {
		return types.NewErr("a %s cannot be compared with an earlier call's", value.Type().TypeName())
	}
	unknown := false
	out := s.filter(func(step *writv1.Step) bool {
		for _, field := range step.GetFields() {
			if field.GetPath() == path {
				unknown = unknown || field.GetValue() == ""
				return field.GetValue() == want
			}
		}
		unknown = unknown || strings.HasPrefix(path, "args.")
		return false
	}).(stepsValue)
	if unknown && len(out.steps) == 0 {
		return types.WrapErr(errForgotten)
	}
	return out
}

// jsonText returns the canonical JSON of a scalar.
func jsonText(value ref.Val) (string, bool) {
	switch v := value.(type) {
	case types.String:
		return atoms.Quote(string(v)), true
	case types.Bool:
		return strconv.FormatBool(bool(v)), true
	}
	return plainText(value)
}

// plainText returns a scalar as the text of a leaf.
func plainText(value ref.Val) (string, bool) {
	switch v := value.(type) {
	case types.String:
		return string(v), true
	case types.Int:
		return strconv.FormatInt(int64(v), 10), true
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), true
	}
	return "", false
}
