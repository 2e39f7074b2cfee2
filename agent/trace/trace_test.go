// SPDX-License-Identifier: Apache-2.0

package trace_test

import (
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/writ-dev/writ/agent/trace"
)

const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var (
	decision = [16]byte{1, 2, 3}
	form     = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
)

func TestATraceparentIsTakenOrAsGoodAsNone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ value, want string }{
		"one":                      {good, good},
		"one not sampled":          {good[:53] + "00", good[:53] + "00"},
		"none":                     {"", ""},
		"another version":          {"cc" + good[2:], ""},
		"capitals":                 {strings.ToUpper(good), ""},
		"too short":                {good[:54], ""},
		"more":                     {good + "-x", ""},
		"a trace id of zeros":      {"00-" + strings.Repeat("0", 32) + good[35:], ""},
		"a span id of zeros":       {good[:36] + strings.Repeat("0", 16) + "-01", ""},
		"digits that are none":     {strings.Replace(good, "b7", "zz", 1), ""},
		"separators that shift":    {"00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01", ""},
		"flags random and sampled": {good[:53] + "03", good[:53] + "03"},
		"a flag that is reserved":  {good[:53] + "05", ""},
		"a line break":             {good[:54] + "\n", ""},
		"something long":           {strings.Repeat("0", 1<<20), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := trace.Parse(tc.value); got != tc.want {
				t.Errorf("Parse(%.80q) = %q, want %q", tc.value, got, tc.want)
			}
		})
	}
}

func TestSpansAreNamedByTheDecision(t *testing.T) {
	t.Parallel()
	decided, executed := trace.Decision(good, decision), trace.Execution(good, decision)
	if decided.TraceID() != trace.Parent(good).TraceID() || executed.TraceID() != decided.TraceID() {
		t.Errorf("the spans are of the traces %s and %s, want the caller's", decided.TraceID(), executed.TraceID())
	}
	if decided.SpanID() == executed.SpanID() || !decided.Equal(trace.Decision(good, decision)) {
		t.Errorf("span ids: %s, %s", decided.SpanID(), executed.SpanID())
	}
	if other := trace.Decision(good, [16]byte{1}); other.SpanID() == decided.SpanID() {
		t.Error("two decisions have one span")
	}
	if alone := trace.Decision("", decision); [16]byte(alone.TraceID()) != decision {
		t.Errorf("a call without a trace begins %s, want its decision's id", alone.TraceID())
	}
	if got := trace.Format(executed, true); !strings.HasPrefix(got, good[:36]) || !strings.HasSuffix(got, "-01") {
		t.Errorf("a tool gets %q", got)
	}
	if got := trace.Format(executed, false); !strings.HasSuffix(got, "-00") {
		t.Errorf("a tool of a call that is not sampled gets %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{good, "", "cc" + good[2:], good + "-x", good + "-", strings.ToUpper(good), "00-\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := trace.Parse(value)
		if got != "" && (got != value || !form.MatchString(got)) {
			t.Errorf("Parse(%q) = %q", value, got)
		}
		// Of later versions OpenTelemetry's reader takes what it knows, and of version 00 an
		// empty part behind the flags; here they are none.
		ctx := propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{"traceparent": value})
		if theirs := oteltrace.SpanContextFromContext(ctx); theirs.IsValid() && (strings.HasPrefix(value, "00-") && len(value) == len(good)) != (got != "") {
			t.Errorf("Parse(%q) = %q, and OpenTelemetry reads %v", value, got, theirs)
		} else if !theirs.IsValid() && got != "" {
			t.Errorf("Parse(%q) = %q, and OpenTelemetry reads nothing", value, got)
		}
		if onward := trace.Format(trace.Execution(got, decision), true); !form.MatchString(onward) {
			t.Errorf("after %q a tool gets %q", value, onward)
		}
	})
}
