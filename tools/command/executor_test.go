// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/sandbox"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/command"
	"github.com/writ-dev/writ/tools/schemas"
)

// probe is the path of the built testdata/probe.
var probe string

func TestMain(m *testing.M) {
	sandbox.MaybeLaunch()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the sandbox's user has to get at it
		panic(err)
	}
	probe = filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-o", probe, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	return m.Run()
}

const schema = `
syntax = "proto3";
package t.v1;
import "writ/v1/options.proto";
service Probe {
  rpc Run(RunRequest) returns (RunResponse) {
    option (writ.v1.tool) = {name: "t.run" risk: RISK_LOW effect: TOOL_EFFECT_READ command: {path: "probe"}};
  }
}
message RunRequest {
  string text = 1;
  int64 number = 2;
  bool flag = 3;
  Color color = 4;
  double real = 5;
  optional string maybe = 6;
  string secret = 7 [(writ.v1.field).sensitivity = SENSITIVITY_REDACT];
  repeated string list = 8;
  bytes raw = 9;
  RunResponse message = 10;
  float single = 11;
  uint64 big = 12;
}
message RunResponse {}
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; }
`

// typed is the tool of the schema.
var typed = sync.OnceValue(func() *tools.Tool {
	set, err := schemas.Compile(context.Background(), fstest.MapFS{"t.proto": {Data: []byte(schema)}}, []string{"t.proto"})
	if err != nil {
		panic(err)
	}
	all, err := tools.Load(set)
	if err != nil {
		panic(err)
	}
	return all[0]
})

// newTool returns the tool of the schema with other options.
func newTool(options *writv1.CommandExecutor) *tools.Tool {
	return &tools.Tool{
		Name:     "t.run",
		Options:  &writv1.ToolOptions{Name: "t.run", Executor: &writv1.ToolOptions_Command{Command: options}},
		Request:  typed().Request,
		Response: typed().Response,
	}
}

// newCall returns a call of the tool with these arguments.
func newCall(t *testing.T, options *writv1.CommandExecutor, arguments string) tools.Execution {
	t.Helper()
	message, err := typed().Request.Read([]byte(arguments), nil, schemas.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return tools.Execution{Tool: newTool(options), Message: message, JSON: []byte(arguments)}
}

var sandboxed = sync.OnceValues(func() (*sandbox.Runner, error) { return sandbox.New(sandbox.Options{}) })

// newExecutor returns an executor with a real sandbox.
func newExecutor(t *testing.T) *command.Executor {
	t.Helper()
	runner, err := sandboxed()
	if err != nil {
		t.Fatalf("this system has no sandbox: %v", err)
	}
	return command.New(runner, filepath.Dir(probe))
}

// fake runs nothing, and remembers what it was asked to run.
type fake struct {
	tier   sandbox.Tier
	report sandbox.Report
	ran    sandbox.Result
	err    error
	while  func()

	specs []sandbox.Spec
}

func (f *fake) Run(_ context.Context, spec sandbox.Spec) (sandbox.Result, error) {
	f.specs = append(f.specs, spec)
	if f.while != nil {
		f.while()
	}
	return f.ran, f.err
}

func (f *fake) Report() sandbox.Report {
	report := f.report
	report.Tier = f.tier
	return report
}

func TestAProgramGetsItsArgumentsAndTheCanonicalJSONAndNothingElse(t *testing.T) {
	t.Parallel()
	arguments := `{"text":"-rf /"}`
	options := &writv1.CommandExecutor{Path: "probe", Args: []string{"tell", "--fixed", "{text}"}}
	result, err := newExecutor(t).Execute(t.Context(), newCall(t, options, arguments))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(result.JSON, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"args":        []any{"--fixed", "--", "-rf /"},
		"stdin":       arguments,
		"environment": []any{"LC_ALL=C.UTF-8", "TZ=UTC"},
		"files":       float64(0),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the program was given (-want +got):\n%s", diff)
	}
	if result.RequestBytes != int64(len(arguments)) || result.ResponseBytes != int64(len(result.JSON)) {
		t.Errorf("%d bytes in, %d out, want %d and %d", result.RequestBytes, result.ResponseBytes, len(arguments), len(result.JSON))
	}
}

func TestTheTraceContextIsInTheEnvironmentWhereTheToolAsksForIt(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, tc := range map[string]struct {
		asks   bool
		parent string
		want   []any
	}{
		"the tool asks":              {true, parent, []any{"LC_ALL=C.UTF-8", "TRACEPARENT=" + parent, "TZ=UTC"}},
		"the tool does not ask":      {false, parent, []any{"LC_ALL=C.UTF-8", "TZ=UTC"}},
		"there is none to be passed": {true, "", []any{"LC_ALL=C.UTF-8", "TZ=UTC"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := newCall(t, &writv1.CommandExecutor{Path: "probe", Args: []string{"tell"}, TraceContext: tc.asks}, `{}`)
			call.TraceParent = tc.parent
			result, err := newExecutor(t).Execute(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Environment []any }
			if err := json.Unmarshal(result.JSON, &got); err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got.Environment, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			if diff := cmp.Diff(tc.want, got.Environment); diff != "" {
				t.Errorf("the environment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestArgumentsStandForFields(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		call string
		want []string
	}{
		"none":                         {nil, `{}`, []string{}},
		"fixed ones alone":             {[]string{"-a", "b c", ""}, `{}`, []string{"-a", "b c", ""}},
		"a string":                     {[]string{"{text}"}, `{"text":"$(x) 'y' \"z\""}`, []string{"--", `$(x) 'y' "z"`}},
		"a string that is not set":     {[]string{"{text}"}, `{}`, []string{"--", ""}},
		"an optional that is not set":  {[]string{"{maybe}"}, `{}`, []string{"--", ""}},
		"a number":                     {[]string{"{number}"}, `{"number":-9007199254740993}`, []string{"--", "-9007199254740993"}},
		"a large number":               {[]string{"{big}"}, `{"big":18446744073709551615}`, []string{"--", "18446744073709551615"}},
		"a number that is not set":     {[]string{"{number}"}, `{}`, []string{"--", "0"}},
		"a boolean":                    {[]string{"{flag}"}, `{"flag":true}`, []string{"--", "true"}},
		"an enum":                      {[]string{"{color}"}, `{"color":"COLOR_RED"}`, []string{"--", "COLOR_RED"}},
		"a real number":                {[]string{"{real}"}, `{"real":0.1}`, []string{"--", "0.1"}},
		"a single real number":         {[]string{"{single}"}, `{"single":0.1}`, []string{"--", "0.1"}},
		"one fence for several":        {[]string{"-x", "{text}", "y", "{flag}"}, `{"text":"t"}`, []string{"-x", "--", "t", "y", "false"}},
		"a fence that stands there":    {[]string{"-x", "--", "{text}"}, `{"text":"t"}`, []string{"-x", "--", "t"}},
		"an earlier fence":             {[]string{"--", "x", "{text}"}, `{"text":"t"}`, []string{"--", "x", "--", "t"}},
		"braces within an argument":    {[]string{"--x={text}", "{ text }", "{}", "{text"}, `{"text":"t"}`, []string{"--x={text}", "{ text }", "{}", "{text"}},
		"a value that is a template":   {[]string{"{text}", "{maybe}"}, `{"text":"{maybe}","maybe":"m"}`, []string{"--", "{maybe}", "m"}},
		"a value with a tab and UTF-8": {[]string{"{text}"}, `{"text":"a\tü"}`, []string{"--", "a\tü"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runner := &fake{tier: sandbox.T1}
			if _, err := command.New(runner, filepath.Dir(probe)).Execute(t.Context(), newCall(t, &writv1.CommandExecutor{Path: "probe", Args: tc.args}, tc.call)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, runner.specs[0].Args); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAValueThatCannotBeAnArgumentRunsNothing(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]string{
		"a line end":        `{"text":"a\nb"}`,
		"a carriage return": `{"text":"a\rb"}`,
		"a NUL":             `{"text":"a\u0000b"}`,
		"too long a one":    `{"text":"` + strings.Repeat("x", 128<<10) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runner := &fake{tier: sandbox.T1}
			_, err := command.New(runner, filepath.Dir(probe)).Execute(t.Context(), newCall(t, &writv1.CommandExecutor{Path: "probe", Args: []string{"{text}"}}, call))
			if !errors.Is(err, tools.ErrFailed) || len(runner.specs) != 0 {
				t.Errorf("Execute: %v after %d runs, want a failure before the first", err, len(runner.specs))
			}
		})
	}
}

func TestCheckFindsAtLoadWhatWouldFailLater(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options *writv1.CommandExecutor
		tier    sandbox.Tier
		want    string
	}{
		"nothing":             {&writv1.CommandExecutor{Path: "probe", Args: []string{"{text}", "{color}"}}, sandbox.T1, ""},
		"an unknown field":    {&writv1.CommandExecutor{Path: "probe", Args: []string{"x", "{other}"}}, sandbox.T1, `argument 2: the request has no field "other"`},
		"a list":              {&writv1.CommandExecutor{Path: "probe", Args: []string{"{list}"}}, sandbox.T1, `field "list" is not a string`},
		"bytes":               {&writv1.CommandExecutor{Path: "probe", Args: []string{"{raw}"}}, sandbox.T1, `field "raw" is not a string`},
		"a message":           {&writv1.CommandExecutor{Path: "probe", Args: []string{"{message}"}}, sandbox.T1, `field "message" is not a string`},
		"a sensitive field":   {&writv1.CommandExecutor{Path: "probe", Args: []string{"{secret}"}}, sandbox.T1, `field "secret" is sensitive`},
		"no program":          {&writv1.CommandExecutor{Path: "absent"}, sandbox.T1, "no such file"},
		"another program":     {&writv1.CommandExecutor{Path: "probe", Sha256: strings.Repeat("0", 64)}, sandbox.T1, "another SHA-256"},
		"no sandbox":          {&writv1.CommandExecutor{Path: "probe"}, sandbox.TierNone, "tier none"},
		"too strong a demand": {&writv1.CommandExecutor{Path: "probe", SandboxTier: 2}, sandbox.T1, "the tool demands 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := command.New(&fake{tier: tc.tier}, filepath.Dir(probe)).Check(newTool(tc.options))
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Check: %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestAProgramThatFailsIsTold(t *testing.T) {
	t.Parallel()
	limits := &writv1.CommandLimits{OutputBytes: 1 << 16, Cpu: durationpb.New(time.Second)}
	for name, tc := range map[string]struct {
		args []string
		want error
	}{
		"a status":                {[]string{"exit", "3"}, tools.ErrFailed},
		"a crash":                 {[]string{"crash"}, tools.ErrFailed},
		"more output than it may": {[]string{"flood"}, &tools.LimitError{Limit: "output"}},
		"more CPU than it may":    {[]string{"spin"}, &tools.LimitError{Limit: "cpu"}},
		"no end":                  {[]string{"sleep"}, tools.ErrTimeout},
		"a file it may not read":  {[]string{"read", "/etc/passwd"}, tools.ErrFailed},
		"the network":             {[]string{"dial"}, tools.ErrFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			result, err := newExecutor(t).Execute(ctx, newCall(t, &writv1.CommandExecutor{Path: "probe", Args: tc.args, Limits: limits}, `{}`))
			var limit, wanted *tools.LimitError
			if errors.As(tc.want, &wanted) {
				if !errors.As(err, &limit) || *limit != *wanted {
					t.Errorf("Execute: %v, want the limit of %s", err, wanted.Limit)
				}
			} else if !errors.Is(err, tc.want) {
				t.Errorf("Execute: %v, want %v", err, tc.want)
			}
			if result == nil || result.JSON != nil {
				t.Errorf("result %+v, want one without JSON", result)
			}
		})
	}
}

func TestACancelledCallEndsItsProgram(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	call := newCall(t, &writv1.CommandExecutor{Path: "probe", Args: []string{"sleep"}}, `{}`)
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := newExecutor(t).Execute(ctx, call); !errors.Is(err, tools.ErrCancelled) {
		t.Errorf("Execute: %v, want it cancelled", err)
	}
}

func TestLinesOnStandardErrorAreProgress(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 3000)
	call := newCall(t, &writv1.CommandExecutor{Path: "probe", Args: []string{"report", "one", "bad \xff byte", "", long}}, `{}`)
	var got []string
	call.Progress = func(line string) { got = append(got, line) }
	result, err := newExecutor(t).Execute(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"one", "bad  byte", "", long[:4096]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if string(result.JSON) != "{}" {
		t.Errorf("result %q, want {}", result.JSON)
	}
}

func TestLimitsAreTheToolsOrTheStatedDefaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		limits *writv1.CommandLimits
		want   sandbox.Limits
	}{
		"defaults": {nil, sandbox.Limits{
			CPU: 10 * time.Second, Memory: 256 << 20, Processes: 64, OpenFiles: 64, FileSize: 16 << 20, Output: 1 << 20,
		}},
		"the tool's": {
			&writv1.CommandLimits{
				Cpu: durationpb.New(time.Second), MemoryBytes: 64 << 20, Processes: 2, OutputBytes: 3, FileBytes: 4, OpenFiles: 16,
			},
			sandbox.Limits{CPU: time.Second, Memory: 64 << 20, Processes: 2, Output: 3, FileSize: 4, OpenFiles: 16},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runner := &fake{tier: sandbox.T1}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := command.New(runner, filepath.Dir(probe)).Execute(ctx, newCall(t, &writv1.CommandExecutor{Path: "probe", Limits: tc.limits}, `{}`)); err != nil {
				t.Fatal(err)
			}
			got := runner.specs[0].Limits
			if got.Wall <= 50*time.Second || got.Wall > time.Minute {
				t.Errorf("wall time %s, want what is left of a minute", got.Wall)
			}
			got.Wall = 0
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("limits (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWithoutASandboxNothingRuns(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		tier sandbox.Tier
		want writv1.SandboxTier
	}{
		"the system gives none":   {sandbox.TierNone, writv1.SandboxTier_SANDBOX_TIER_UNSPECIFIED},
		"the tool asks for more":  {sandbox.T1, 2},
		"neither, but it is said": {sandbox.TierNone, writv1.SandboxTier_SANDBOX_TIER_T1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runner := &fake{tier: tc.tier}
			_, err := command.New(runner, filepath.Dir(probe)).Execute(t.Context(), newCall(t, &writv1.CommandExecutor{Path: "probe", SandboxTier: tc.want}, `{}`))
			if !errors.Is(err, tools.ErrSandboxUnavailable) || len(runner.specs) != 0 {
				t.Errorf("Execute: %v after %d runs, want a refusal before the first", err, len(runner.specs))
			}
		})
	}
}

func TestWhatTheSandboxSaysBecomesWhatToolsSay(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ran  sandbox.Result
		err  error
		want error
	}{
		"the wall clock":       {sandbox.Result{Limit: sandbox.LimitWall}, sandbox.ErrTimeout, tools.ErrTimeout},
		"no sandbox after all": {sandbox.Result{}, sandbox.ErrUnavailable, tools.ErrSandboxUnavailable},
		"no start":             {sandbox.Result{}, sandbox.ErrStart, tools.ErrFailed},
		"a bad spec":           {sandbox.Result{}, sandbox.ErrSpec, tools.ErrFailed},
		"a leftover":           {sandbox.Result{}, sandbox.ErrLeftover, tools.ErrFailed},
		"a signal":             {sandbox.Result{ExitCode: -1, Signal: "SIGSEGV"}, nil, tools.ErrFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := command.New(&fake{tier: sandbox.T1, ran: tc.ran, err: tc.err}, filepath.Dir(probe)).
				Execute(t.Context(), newCall(t, &writv1.CommandExecutor{Path: "probe"}, `{}`))
			if !errors.Is(err, tc.want) {
				t.Errorf("Execute: %v, want %v", err, tc.want)
			}
		})
	}
}
