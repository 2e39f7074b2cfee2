// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/trace"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// defaultQueue is OtlpConfig.queue when it is not set.
	defaultQueue = 4096
	// batchSpans is how many spans go out together, and batchTime how long one waits for
	// others.
	batchSpans = 512
	batchTime  = time.Second
	// closing bounds the sending of what is left when the agent stops.
	closing = 5 * time.Second
	// quiet is the least time between two words in the log that nothing is taken.
	quiet = time.Minute
)

// Options is what a tracer is made of.
type Options struct {
	// Config says where spans go. It MUST be set.
	Config *writv1.OtlpConfig
	// TLS is that of the connection; nil is plain text.
	TLS *tls.Config
	// Origin and LogID are the ledger's.
	Origin string
	LogID  []byte
	// Version is the program's.
	Version string
	// Registry takes the metrics of the tracer itself. It MUST be set.
	Registry prometheus.Registerer
	// Log is the agent's log. It MUST be set.
	Log *slog.Logger
}

// Tracer is an [agent.Tracer] that sends what it hears to a receiver of OTLP. Its
// methods may be called by several goroutines.
type Tracer struct {
	log      *slog.Logger
	sampler  sdktrace.Sampler
	queue    chan event
	counted  *prometheus.CounterVec
	meters   *meters // nil without metrics
	exporter sdktrace.SpanExporter
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer

	stop sync.Once
	// stopping ends when the tracer is closed, and stopped when the last span is sent.
	stopping, stopped chan struct{}

	// batch and complained are the sending goroutine's.
	batch      batch
	complained time.Time
}

var _ agent.Tracer = (*Tracer)(nil)

// event is one of the two.
type event struct {
	decided *agent.Decided
	ended   *agent.Ended
}

// New connects to nothing yet: the receiver may come later, and go.
func New(ctx context.Context, o Options) (*Tracer, error) {
	headers, err := readHeaders(o.Config.GetHeadersFile())
	if err != nil {
		return nil, fmt.Errorf("headers_file: %w", err)
	}
	to := target{config: o.Config, tls: o.TLS, headers: headers}
	exporter, err := to.spans(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the exporter of spans: %w", err)
	}
	ratio := 1.0
	if o.Config.SampleRatio != nil {
		ratio = o.Config.GetSampleRatio()
	}
	size := int(o.Config.GetQueue())
	if size == 0 {
		size = defaultQueue
	}
	t := &Tracer{
		log:      o.Log,
		sampler:  sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio)),
		queue:    make(chan event, size),
		counted:  counters(o.Registry),
		exporter: exporter,
		stopping: make(chan struct{}), stopped: make(chan struct{}),
	}
	from := resource.NewWithAttributes(schemaURL,
		attribute.String(serviceName, "writ-agent"), attribute.String(serviceVersion, o.Version),
		attribute.String(serviceInstance, o.Origin), attribute.String(writOrigin, o.Origin),
		attribute.String(writLog, hex.EncodeToString(o.LogID)))
	if o.Config.GetMetricsInterval() != nil {
		if t.meters, err = newMeters(ctx, to, from); err != nil {
			return nil, errors.Join(fmt.Errorf("make the exporter of metrics: %w", err), exporter.Shutdown(ctx))
		}
	}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(from), sdktrace.WithSampler(t.sampler),
		sdktrace.WithIDGenerator(given{}), sdktrace.WithSpanProcessor(&t.batch),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: -1, AttributeCountLimit: 64}))
	t.tracer = t.provider.Tracer(scopeName, oteltrace.WithSchemaURL(schemaURL), oteltrace.WithInstrumentationVersion(o.Version))
	go t.run()
	return t, nil
}

// counters count what becomes of spans.
func counters(registry prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_telemetry_spans_total",
		Help: "Spans of decisions and executions, by what became of them: exported, failed (the receiver did not take them) or dropped (the queue was full).",
	}, []string{"result"})
	registry.MustRegister(c)
	for _, result := range []string{exported, failed, dropped} {
		c.WithLabelValues(result)
	}
	return c
}

// What becomes of spans.
const (
	exported = "exported"
	failed   = "failed"
	dropped  = "dropped"
)

// Decided queues a decision.
func (t *Tracer) Decided(decided agent.Decided) { t.put(event{decided: &decided}) }

// Ended queues an execution. A call that never started has none.
func (t *Tracer) Ended(ended agent.Ended) {
	if ended.State != writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		t.put(event{ended: &ended})
	}
}

func (t *Tracer) put(e event) {
	select {
	case t.queue <- e:
	default:
		t.counted.WithLabelValues(dropped).Inc()
	}
}

// Onward returns the traceparent of the execution's span.
func (t *Tracer) Onward(decision [16]byte, parent string) string {
	return trace.Format(trace.Execution(parent, decision), t.sampled(parent, decision))
}

// run builds and sends spans until the tracer is closed, and then what is left.
func (t *Tracer) run() {
	defer close(t.stopped)
	tick := time.NewTicker(batchTime)
	defer tick.Stop()
	for {
		select {
		case e := <-t.queue:
			t.take(e)
		case <-tick.C:
			t.send(context.Background())
		case <-t.stopping:
			t.rest()
			return
		}
	}
}

func (t *Tracer) take(e event) {
	t.build(e)
	if len(t.batch.spans) >= batchSpans {
		t.send(context.Background())
	}
}

// rest sends what is queued, as far as there is time.
func (t *Tracer) rest() {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	for {
		select {
		case e := <-t.queue:
			t.build(e)
			if len(t.batch.spans) >= batchSpans {
				t.send(ctx)
			}
			continue
		default:
		}
		t.send(ctx)
		return
	}
}

// send hands the batch to the receiver. What it does not take in time is lost, and
// counted: the ledger has it.
func (t *Tracer) send(ctx context.Context) {
	spans := t.batch.take()
	if len(spans) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closing)
	defer cancel()
	err := t.exporter.ExportSpans(ctx, spans)
	if err == nil {
		t.counted.WithLabelValues(exported).Add(float64(len(spans)))
		return
	}
	t.counted.WithLabelValues(failed).Add(float64(len(spans)))
	if now := time.Now(); now.Sub(t.complained) >= quiet {
		t.complained = now
		t.log.Warn("the telemetry receiver does not take spans; they are lost, and in the ledger", "spans", len(spans), "error", err)
	}
}

// Close sends what is left and ends. Nothing may be handed over afterwards: it is
// dropped.
func (t *Tracer) Close(ctx context.Context) error {
	t.stop.Do(func() { close(t.stopping) })
	<-t.stopped
	ctx, cancel := context.WithTimeout(ctx, closing)
	defer cancel()
	if err := errors.Join(t.meters.close(ctx), t.exporter.Shutdown(ctx)); err != nil {
		// What is lost of telemetry fails nothing.
		t.log.Warn("the telemetry did not end in good order", "error", err)
	}
	return nil
}
