// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/trace"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// given hands the SDK the ids that package trace made.
type given struct{}

// spanKey is the context's key for them.
type spanKey struct{}

// NewIDs returns the ids that are in the context.
func (given) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	span, _ := ctx.Value(spanKey{}).(oteltrace.SpanContext)
	return span.TraceID(), span.SpanID()
}

// NewSpanID returns the id that is in the context.
func (g given) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	_, id := g.NewIDs(ctx)
	return id
}

// batch is the SDK's processor: it keeps what ended. It is the sending goroutine's.
type batch struct{ spans []sdktrace.ReadOnlySpan }

// OnStart does nothing.
func (*batch) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd keeps a span.
func (b *batch) OnEnd(span sdktrace.ReadOnlySpan) { b.spans = append(b.spans, span) }

// Shutdown does nothing: the tracer sends what is left.
func (*batch) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing.
func (*batch) ForceFlush(context.Context) error { return nil }

func (b *batch) take() []sdktrace.ReadOnlySpan {
	spans := b.spans
	b.spans = nil
	return spans
}

// sampled says whether a call is shown: as its caller says, where it came with a trace,
// and else by its share. It is the same for all spans of a decision.
func (t *Tracer) sampled(parent string, decision [16]byte) bool {
	ctx := oteltrace.ContextWithRemoteSpanContext(context.Background(), trace.Parent(parent))
	result := t.sampler.ShouldSample(sdktrace.SamplingParameters{
		ParentContext: ctx, TraceID: trace.Decision(parent, decision).TraceID(),
	})
	return result.Decision == sdktrace.RecordAndSample
}

// build makes the span, and takes the measures.
func (t *Tracer) build(e event) {
	if e.decided != nil {
		t.meters.decided(e.decided)
		t.decision(e.decided)
		return
	}
	t.meters.ended(e.ended)
	t.execution(e.ended)
}

func (t *Tracer) decision(d *agent.Decided) {
	if !t.sampled(d.Parent, d.Decision) {
		return
	}
	ctx := context.WithValue(context.Background(), spanKey{}, trace.Decision(d.Parent, d.Decision))
	if parent := trace.Parent(d.Parent); parent.IsValid() {
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, parent)
	}
	attributes := append(common(&d.Call, kindGuardrail),
		attribute.String(writVerdict, strings.TrimPrefix(d.Verdict.String(), "VERDICT_")),
		attribute.String(writReason, reasons.Name(d.Reason)))
	if d.MCP {
		attributes = append(attributes, attribute.String(mcpMethod, toolsCall))
	}
	if len(d.Failed) > 0 {
		attributes = append(attributes, attribute.StringSlice(writFailed, d.Failed))
	}
	if d.Bundle != [32]byte{} {
		attributes = append(attributes, attribute.String(writBundle, hex.EncodeToString(d.Bundle[:])))
	}
	if d.Recorded {
		attributes = append(attributes, attribute.Int64(writRecord, int64(d.Index)))
	}
	_, span := t.tracer.Start(ctx, named(decide, d.Tool), oteltrace.WithTimestamp(d.Received), oteltrace.WithAttributes(attributes...))
	if agentFailed(d.Reason) {
		span.SetStatus(codes.Error, reasons.Name(d.Reason))
		span.SetAttributes(attribute.String(errorType, reasons.Name(d.Reason)))
	}
	span.End(oteltrace.WithTimestamp(d.At))
}

// agentFailed tells a fault of the agent from a denial, which is none.
func agentFailed(reason writv1.Reason) bool {
	name := reasons.Name(reason)
	return strings.HasPrefix(name, "AGENT_") || strings.HasPrefix(name, "LEDGER_")
}

func (t *Tracer) execution(e *agent.Ended) {
	if !t.sampled(e.Parent, e.Decision) {
		return
	}
	above := trace.Decision(e.Parent, e.Decision)
	ctx := oteltrace.ContextWithSpanContext(context.Background(), above.WithTraceFlags(above.TraceFlags().WithSampled(true)))
	ctx = context.WithValue(ctx, spanKey{}, trace.Execution(e.Parent, e.Decision))
	attributes := append(common(&e.Call, kindTool),
		attribute.String(genAIOperation, executeTool),
		attribute.String(writOutcome, strings.TrimPrefix(e.State.String(), "OUTCOME_STATE_")),
		attribute.Int64(writRequestBytes, int64(e.RequestBytes)), attribute.Int64(writResponseBytes, int64(e.ResponseBytes)))
	name, kind := executeTool, oteltrace.SpanKindInternal
	if e.MCP {
		name, kind = toolsCall, oteltrace.SpanKindClient
		attributes = append(attributes, attribute.String(mcpMethod, toolsCall))
	}
	if e.HTTPStatus > 0 {
		attributes = append(attributes, attribute.Int(httpStatus, e.HTTPStatus))
	}
	began := e.At.Add(-e.Took)
	if e.Took == 0 {
		began = e.Received
	}
	_, span := t.tracer.Start(ctx, named(name, e.Tool), oteltrace.WithTimestamp(began), oteltrace.WithSpanKind(kind), oteltrace.WithAttributes(attributes...))
	if why := failure(e); why != "" {
		span.SetStatus(codes.Error, why)
		span.SetAttributes(attribute.String(errorType, why))
	}
	span.End(oteltrace.WithTimestamp(e.At))
}

// failure names why an execution failed; empty when it did not, or nobody saw it.
func failure(e *agent.Ended) string {
	switch e.State {
	case writv1.OutcomeState_OUTCOME_STATE_FAILED, writv1.OutcomeState_OUTCOME_STATE_UNKNOWN:
		if e.Reason == writv1.Reason_REASON_UNSPECIFIED {
			return "_OTHER"
		}
		return reasons.Name(e.Reason)
	default:
		return ""
	}
}

// common are the attributes of both spans.
func common(call *agent.Call, kind string) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 0, 16)
	attributes = append(attributes,
		attribute.String(writDecision, hex.EncodeToString(call.Decision[:])),
		attribute.String(writSurface, strings.ToLower(strings.TrimPrefix(call.Surface.String(), "SURFACE_"))),
		attribute.String(openInferenceKind, kind))
	if call.Tool != "" {
		attributes = append(attributes, attribute.String(genAITool, call.Tool))
	}
	if call.Session != "" {
		attributes = append(attributes, attribute.String(genAIConversation, call.Session))
	}
	return attributes
}

// named is a span's name: of what is done, and with which tool.
func named(what, tool string) string {
	if tool == "" {
		return what
	}
	return what + " " + tool
}
