// SPDX-License-Identifier: Apache-2.0

// Package trace says where a call stands in a distributed trace: it reads the W3C
// traceparent of a request, and names the spans of a decision and of what follows it.
//
//	parent := trace.Parse(header)                  // "" when it is not one
//	span := trace.Execution(parent, decisionID)    // what a tool that is run is told
//
// The names are made from the decision's id and nothing else, so that whoever holds a
// record finds its spans, and whoever holds a span finds its record: a call that came
// without a trace begins one whose id is the decision's, and a span's id is a digest of
// the decision's id and of what the span is of.
//
// What the package promises: what it returns is well-formed, whatever came in. It makes
// no span, and starts nothing.
package trace

import (
	"context"
	"crypto/sha256"

	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// header is the header that W3C Trace Context names, and length what its version 00
// has: "00-", 32 digits, "-", 16 digits, "-", 2 digits.
const (
	header = "traceparent"
	length = 55
)

// Parse returns the traceparent if it is one of version 00, and else the empty string:
// what is not one is as good as none (Trace Context, section 2.2).
//
// It stands on the way of every call, whether somebody makes spans or not, and so reads
// by itself: OpenTelemetry's reader makes nine allocations. The fuzz test holds the two
// against each other.
func Parse(value string) string {
	if len(value) != length || value[:3] != "00-" || value[35] != '-' || value[52] != '-' {
		return ""
	}
	traceID, spanID, flags := value[3:35], value[36:52], value[53:]
	if !digits(traceID) || !digits(spanID) || zeros(traceID) || zeros(spanID) {
		return ""
	}
	// Two flags have a meaning, sampled and random; others are reserved.
	if flags[0] != '0' || flags[1] < '0' || flags[1] > '3' {
		return ""
	}
	return value
}

// digits says whether a text is of lower-case hexadecimal digits alone.
func digits(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// zeros says whether an id is none.
func zeros(text string) bool {
	for i := range len(text) {
		if text[i] != '0' {
			return false
		}
	}
	return true
}

// Parent returns the span that a call came from; not valid when it came from none.
func Parent(parent string) oteltrace.SpanContext { return contextOf(parent) }

// Decision returns the span of a decision. Parent is what [Parse] returned. It is
// sampled if the parent is.
func Decision(parent string, decision [16]byte) oteltrace.SpanContext {
	return span(parent, decision, "writ/span/decision/v1")
}

// Execution returns the span of what a decision let happen, as [Decision] does.
func Execution(parent string, decision [16]byte) oteltrace.SpanContext {
	return span(parent, decision, "writ/span/execution/v1")
}

// Format returns the traceparent that tells somebody else of a span.
func Format(span oteltrace.SpanContext, sampled bool) string {
	return format(span.WithTraceFlags(span.TraceFlags().WithSampled(sampled)))
}

func span(parent string, decision [16]byte, of string) oteltrace.SpanContext {
	from := contextOf(parent)
	config := oteltrace.SpanContextConfig{TraceID: from.TraceID(), TraceFlags: from.TraceFlags()}
	if !from.IsValid() {
		config.TraceID = decision
	}
	sum := sha256.Sum256(append([]byte(of), decision[:]...))
	copy(config.SpanID[:], sum[:])
	return oteltrace.NewSpanContext(config)
}

// contextOf has OpenTelemetry's own reader read what Parse returned.
func contextOf(value string) oteltrace.SpanContext {
	if value == "" {
		return oteltrace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{header: value})
	return oteltrace.SpanContextFromContext(ctx)
}

func format(span oteltrace.SpanContext) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(oteltrace.ContextWithSpanContext(context.Background(), span), carrier)
	return carrier[header]
}
