// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

// fence ends the options of a program that follows POSIX (Utility Syntax
// Guideline 10).
const fence = "--"

// maxArgument is the longest argument that Linux passes on (MAX_ARG_STRLEN, less
// the NUL).
const maxArgument = 128<<10 - 1

// template matches an argument that stands for a field.
var template = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

// checkArguments says which argument does not stand for a field that it may.
func checkArguments(args []string, request protoreflect.MessageDescriptor) error {
	for i, arg := range args {
		match := template.FindStringSubmatch(arg)
		if match == nil {
			continue
		}
		field := request.Fields().ByName(protoreflect.Name(match[1]))
		if field == nil {
			return fmt.Errorf("argument %d: the request has no field %q", i+1, match[1])
		}
		if !scalar(field) {
			return fmt.Errorf("argument %d: field %q is not a string, a number, a boolean or an enum", i+1, match[1])
		}
		if sensitive(field) {
			return fmt.Errorf("argument %d: field %q is sensitive, and other processes may read arguments; it is on standard input", i+1, match[1])
		}
	}
	return nil
}

func scalar(field protoreflect.FieldDescriptor) bool {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind, protoreflect.BytesKind:
		return false
	default:
		return !field.IsList() && !field.IsMap()
	}
}

// sensitive reports whether a field is sensitive, or its options cannot be read.
// They are decoded anew, since a compiler may leave writ's own options in them as
// a dynamic message.
func sensitive(field protoreflect.FieldDescriptor) bool {
	encoded, err := proto.Marshal(field.Options())
	if err != nil {
		return true
	}
	options := &descriptorpb.FieldOptions{}
	if err := proto.Unmarshal(encoded, options); err != nil {
		return true
	}
	policy, ok := proto.GetExtension(options, writv1.E_Field).(*writv1.FieldPolicy)
	return !ok || policy.GetSensitivity() != writv1.Sensitivity_SENSITIVITY_UNSPECIFIED
}

// arguments puts the values of fields in their places, and the fence before the
// first. A field that is not set has its zero value.
func arguments(args []string, message protoreflect.Message) ([]string, error) {
	out := make([]string, 0, len(args)+1)
	fenced := false
	for i, arg := range args {
		match := template.FindStringSubmatch(arg)
		if match == nil {
			out = append(out, arg)
			continue
		}
		if !fenced && (i == 0 || args[i-1] != fence) {
			out = append(out, fence)
		}
		fenced = true
		field := message.Descriptor().Fields().ByName(protoreflect.Name(match[1]))
		if field == nil || !scalar(field) || sensitive(field) {
			return nil, fmt.Errorf("%w: argument %d does not stand for a field that it may", tools.ErrFailed, i+1)
		}
		value := text(field, message.Get(field))
		if len(value) > maxArgument || strings.ContainsAny(value, "\x00\n\r") {
			return nil, fmt.Errorf("%w: the value of %s cannot be an argument: it is too long, or has a NUL or a line end", tools.ErrFailed, match[1])
		}
		out = append(out, value)
	}
	return out, nil
}

// text writes a scalar as canonical JSON does, without the quotes of a string.
func text(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch field.Kind() {
	case protoreflect.EnumKind:
		if v := field.Enum().Values().ByNumber(value.Enum()); v != nil {
			return string(v.Name())
		}
		return strconv.FormatInt(int64(value.Enum()), 10)
	case protoreflect.FloatKind:
		return strconv.FormatFloat(value.Float(), 'g', -1, 32)
	case protoreflect.DoubleKind:
		return strconv.FormatFloat(value.Float(), 'g', -1, 64)
	default:
		return value.String()
	}
}
