// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Field is what of a record is compared.
type Field int

// The fields. Their names in filters are those of [Field.String].
const (
	Time Field = iota + 1
	Kind
	Origin
	Decision
	Tenant
	Principal
	Workload
	User
	Tool
	Verdict
	Reason
	Check
	Session
	Workflow
	Bundle
	RequestID
	TraceID
)

// Operator is how a field is compared.
type Operator string

// The operators. Has is for fields that have several values.
const (
	Equal        Operator = "="
	NotEqual     Operator = "!="
	Less         Operator = "<"
	LessEqual    Operator = "<="
	Greater      Operator = ">"
	GreaterEqual Operator = ">="
	Has          Operator = ":"
)

// kind of a field's values.
type kind int

const (
	text  kind = iota // a text of at most so many characters
	bytes             // so many bytes in hexadecimal
	enum
	instant
)

// spec says how a field is written.
type spec struct {
	name string
	kind kind
	size int
	enum protoreflect.EnumDescriptor
	// prefix is that of an enum's values, or of a digest, which may be left away.
	prefix string
	// ofDecision says that outcomes have it of their decision.
	ofDecision bool
}

var specs = map[Field]spec{
	Time:      {name: "time", kind: instant},
	Kind:      {name: "kind", kind: enum, enum: writv1.RecordKind(0).Descriptor(), prefix: "RECORD_KIND_"},
	Origin:    {name: "origin", kind: text, size: maxOrigin},
	Decision:  {name: "decision", kind: bytes, size: 16},
	Tenant:    {name: "tenant", kind: text, size: maxTenant},
	Principal: {name: "principal", kind: text, size: maxWorkload, ofDecision: true},
	Workload:  {name: "workload", kind: text, size: maxWorkload, ofDecision: true},
	User:      {name: "user", kind: text, size: maxUser, ofDecision: true},
	Tool:      {name: "tool", kind: text, size: maxTool, ofDecision: true},
	Verdict:   {name: "verdict", kind: enum, enum: writv1.Verdict(0).Descriptor(), prefix: "VERDICT_", ofDecision: true},
	Reason:    {name: "reason", kind: enum, enum: writv1.Reason(0).Descriptor(), prefix: "REASON_"},
	Check:     {name: "check", kind: text, size: maxCheck, ofDecision: true},
	Session:   {name: "session", kind: bytes, size: 16, ofDecision: true},
	Workflow:  {name: "workflow", kind: text, size: maxWorkflow, ofDecision: true},
	Bundle:    {name: "bundle", kind: bytes, size: 32, prefix: "sha256:"},
	RequestID: {name: "request_id", kind: text, size: maxRequestID, ofDecision: true},
	TraceID:   {name: "trace_id", kind: bytes, size: 16, ofDecision: true},
}

// String is the field's name in filters.
func (f Field) String() string { return specs[f].name }

// named returns the field with a name.
func named(name string) (Field, bool) {
	for f, s := range specs {
		if s.name == name {
			return f, true
		}
	}
	return 0, false
}

// names are the names of all fields, in their order.
func names() string {
	var out []string
	for _, f := range slices.Sorted(maps.Keys(specs)) {
		out = append(out, f.String())
	}
	return strings.Join(out, ", ")
}

// operators are those that a field is compared with.
func (f Field) operators() []Operator {
	switch {
	case f == Time:
		return []Operator{Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual}
	case f == Check:
		return []Operator{Has, Equal, NotEqual}
	default:
		return []Operator{Equal, NotEqual}
	}
}

// read reads a value of the field's into a comparison.
func (s spec) read(c *Comparison, value string) error {
	switch s.kind {
	case instant:
		at, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return fmt.Errorf("%q is no time such as \"2026-01-31T09:00:00Z\"", value)
		}
		c.Number = nanoseconds(at)
	case enum:
		word := strings.TrimPrefix(strings.ReplaceAll(strings.ToUpper(value), "-", "_"), s.prefix)
		found := s.enum.Values().ByName(protoreflect.Name(s.prefix + word))
		if found == nil || found.Number() == 0 {
			return fmt.Errorf("%q is no %s%s", value, s.name, s.some())
		}
		c.Number = int64(found.Number())
	case bytes:
		raw, err := hex.DecodeString(strings.TrimPrefix(value, s.prefix))
		if err != nil || len(raw) != s.size && len(raw) != 0 {
			return fmt.Errorf("%q is no %s: it has %d hexadecimal digits", value, s.name, 2*s.size)
		}
		c.Text = string(raw)
	default:
		if utf8.RuneCountInString(value) > s.size {
			return fmt.Errorf("the value has more than the %d characters of a %s", s.size, s.name)
		}
		c.Text = value
	}
	return nil
}

// some names the values of an enum that has few.
func (s spec) some() string {
	if s.enum.Values().Len() > 20 {
		return ""
	}
	var out []string
	for i := 1; i < s.enum.Values().Len(); i++ {
		out = append(out, strings.TrimPrefix(string(s.enum.Values().Get(i).Name()), s.prefix))
	}
	return ": one of " + strings.Join(out, ", ")
}

// nanoseconds is a time as records have it. What does not fit is the nearest that does.
func nanoseconds(t time.Time) int64 {
	first, last := time.Unix(0, 0), time.Unix(1<<33, 0)
	switch {
	case t.Before(first):
		return -1
	case t.After(last):
		return last.UnixNano()
	default:
		return t.UnixNano()
	}
}
