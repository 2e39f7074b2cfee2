// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
)

// meters are the metrics that go to the receiver. A nil *meters takes no measures.
type meters struct {
	provider                     *sdkmetric.MeterProvider
	decisions, executions, calls metric.Float64Histogram
}

// Bounds of the buckets in seconds: the convention's for what tools take, and those of
// /metrics for what deciding takes.
var (
	toolBounds     = []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300}
	decisionBounds = []float64{25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3, 51.2e-3, 102.4e-3, 204.8e-3, 409.6e-3, 819.2e-3}
)

func newMeters(ctx context.Context, to target, from *resource.Resource) (*meters, error) {
	exporter, err := to.metrics(ctx)
	if err != nil {
		return nil, err
	}
	interval := to.config.GetMetricsInterval().AsDuration()
	m := &meters{provider: sdkmetric.NewMeterProvider(sdkmetric.WithResource(from),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(interval), sdkmetric.WithTimeout(exportTime))))}
	meter := m.provider.Meter(scopeName, metric.WithSchemaURL(schemaURL))
	for _, each := range []struct {
		into       *metric.Float64Histogram
		name, what string
		bounds     []float64
	}{
		{&m.decisions, decisionDuration, "Time from receiving a call to its durable decision.", decisionBounds},
		{&m.executions, executeToolDuration, "Duration of tool executions.", toolBounds},
		{&m.calls, mcpOperationDuration, "Duration of MCP requests as their sender sees it.", toolBounds},
	} {
		if *each.into, err = meter.Float64Histogram(each.name, metric.WithUnit("s"), metric.WithDescription(each.what), metric.WithExplicitBucketBoundaries(each.bounds...)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *meters) decided(d *agent.Decided) {
	if m == nil {
		return
	}
	attributes := append(ofTool(d.Tool),
		attribute.String(writVerdict, strings.TrimPrefix(d.Verdict.String(), "VERDICT_")), attribute.String(writReason, reasons.Name(d.Reason)))
	m.decisions.Record(context.Background(), d.At.Sub(d.Received).Seconds(), metric.WithAttributes(attributes...))
}

// ended measures what somebody timed.
func (m *meters) ended(e *agent.Ended) {
	if m == nil || e.Took == 0 {
		return
	}
	attributes := append(ofTool(e.Tool), attribute.String(genAIOperation, executeTool))
	if why := failure(e); why != "" {
		attributes = append(attributes, attribute.String(errorType, why))
	}
	into := m.executions
	if e.MCP {
		into, attributes = m.calls, append(attributes, attribute.String(mcpMethod, toolsCall))
	}
	into.Record(context.Background(), e.Took.Seconds(), metric.WithAttributes(attributes...))
}

// ofTool is the tool's name where the bundle has it: callers cannot make series.
func ofTool(tool string) []attribute.KeyValue {
	if tool == "" {
		return nil
	}
	return []attribute.KeyValue{attribute.String(genAITool, tool)}
}

func (m *meters) close(ctx context.Context) error {
	if m == nil {
		return nil
	}
	return m.provider.Shutdown(ctx)
}
