// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools"
)

const (
	// defaultResponse is AgentLimits.response_bytes when it is not set.
	defaultResponse = 4 << 20
	// headerBytes bounds the headers of an answer.
	headerBytes = 64 << 10
	// attempts is how often a call is tried while nothing takes the connection.
	attempts = 3
	// firstPause is the longest pause before the second attempt; each further one
	// may be twice as long.
	firstPause = 50 * time.Millisecond
	// serviceTime is the header that Envoy adds to what an upstream answered, and
	// not to what it answers in an upstream's place.
	serviceTime = "X-Envoy-Upstream-Service-Time"
)

// Options configures an [Executor].
type Options struct {
	// Listener is Envoy's listener for the agent, "unix:/path". It MUST be set.
	Listener string
	// Catalogue names the upstreams. A call to another is not sent.
	Catalogue *writv1.Catalogue
	// ResponseBytes bounds the body of an answer. Default: 4 MiB.
	ResponseBytes int
	// Pause waits before a further attempt, or until ctx is done. Nil waits by the
	// wall clock.
	Pause func(ctx context.Context, d time.Duration) error
	// Jitter returns a number in [0, 1) by which a pause is shortened. Nil is random.
	Jitter func() float64
}

// Executor sends calls to upstreams. It is safe for use by several goroutines;
// nothing in it changes after New.
type Executor struct {
	client    *http.Client
	upstreams map[string]bool
	limit     int
	pause     func(context.Context, time.Duration) error
	jitter    func() float64
}

var _ tools.Executor = (*Executor)(nil)

// New returns an executor that reaches nothing but the listener.
func New(o Options) (*Executor, error) {
	socket, found := strings.CutPrefix(o.Listener, "unix:/")
	if !found || socket == "" {
		return nil, fmt.Errorf("listener %q is not unix:/ and a path", o.Listener)
	}
	e := &Executor{
		client:    client("/" + socket),
		upstreams: make(map[string]bool),
		limit:     o.ResponseBytes,
		pause:     o.Pause,
		jitter:    o.Jitter,
	}
	for _, upstream := range o.Catalogue.GetUpstreams() {
		e.upstreams[upstream.GetName()] = true
	}
	if e.limit == 0 {
		e.limit = defaultResponse
	}
	if e.pause == nil {
		e.pause = pause
	}
	if e.jitter == nil {
		e.jitter = rand.Float64
	}
	return e, nil
}

// client dials the socket whatever it is asked for.
func client(socket string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			// On a connection that was used before, net/http sends a request a second
			// time by itself when the first try breaks off, above all one that bears an
			// Idempotency-Key. A new connection for each call rules that out, and on a
			// unix socket costs little.
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: headerBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Execute sends the call, and returns what the upstream answered. The result is
// there beside an error as well, as far as there was an answer.
func (e *Executor) Execute(ctx context.Context, x tools.Execution) (*tools.Result, error) {
	request, err := e.request(ctx, x)
	if err != nil {
		return nil, err
	}
	result := &tools.Result{RequestBytes: max(0, request.ContentLength)}
	response, err := e.send(request, x.Tool.Options.GetRepeat())
	if err != nil {
		return result, failure(ctx, err)
	}
	defer func() { _ = response.Body.Close() }() // what mattered of it was read
	result.HTTPStatus = response.StatusCode
	if err := statusError(response); err != nil {
		return result, err
	}
	body, err := e.read(response)
	result.ResponseBytes = int64(len(body))
	if err != nil {
		return result, failure(ctx, err)
	}
	result.JSON = body
	return result, nil
}

// request renders the call.
func (e *Executor) request(ctx context.Context, x tools.Execution) (*http.Request, error) {
	upstream := x.Tool.Options.GetWeb().GetUpstream()
	if !e.upstreams[upstream] || x.Tool.HTTP == nil {
		return nil, fmt.Errorf("%w: the tool's upstream is not in the catalogue, or the tool has no HTTP binding", tools.ErrFailed)
	}
	method, path, query, body := x.Tool.HTTP.Render(x.Message)
	target := &url.URL{Scheme: "http", Host: upstream, RawQuery: query}
	var err error
	if target.Path, err = url.PathUnescape(path); err != nil || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%w: the rendered path is not one", tools.ErrFailed)
	}
	target.RawPath = path
	if target.EscapedPath() != path {
		return nil, fmt.Errorf("%w: the rendered path has more than one reading", tools.ErrFailed)
	}
	var content io.Reader
	if body != nil {
		content = strings.NewReader(string(body))
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tools.ErrFailed, err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "writ")
	if x.DecisionID != "" {
		request.Header.Set(tools.DecisionHeader, x.DecisionID)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if x.TraceParent != "" {
		request.Header.Set("Traceparent", x.TraceParent)
	}
	if x.IdempotencyKey != "" {
		request.Header.Set("Idempotency-Key", x.IdempotencyKey)
	}
	return request, nil
}

// send sends the request, and again only what nothing can have seen.
func (e *Executor) send(request *http.Request, repeat writv1.Repeat) (*http.Response, error) {
	longest := firstPause
	for attempt := 1; ; attempt++ {
		response, err := e.client.Do(request)
		again := err != nil && attempt < attempts && repeat == writv1.Repeat_REPEAT_IDEMPOTENT && refused(err)
		if !again {
			return response, err
		}
		if err := e.pause(request.Context(), time.Duration((1-e.jitter())*float64(longest))); err != nil {
			return nil, err
		}
		longest *= 2
		if request.GetBody == nil {
			continue
		}
		if request.Body, err = request.GetBody(); err != nil {
			return nil, err
		}
	}
}

// undialled reports whether there was no connection: not a byte was sent.
func undialled(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// refused reports whether nothing listens, or not yet, or its queue is full.
func refused(err error) bool {
	return undialled(err) &&
		(errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EAGAIN))
}

// failure says in the words of package tools what went wrong on the way. Nothing
// of the request is in it.
func failure(ctx context.Context, err error) error {
	var limit *tools.LimitError
	switch {
	case errors.As(err, &limit), errors.Is(err, tools.ErrOutputInvalid):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", tools.ErrTimeout, context.Cause(ctx))
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", tools.ErrCancelled, context.Cause(ctx))
	case undialled(err):
		return fmt.Errorf("%w: nothing takes connections on Envoy's listener for the agent", tools.ErrUpstreamUnavailable)
	default:
		// The cause is hidden on purpose: net/http puts the URL into its errors, and
		// with it the arguments.
		return fmt.Errorf("%w: the exchange with the upstream broke off", tools.ErrFailed)
	}
}

// notSent are what Envoy says, in the text of the 503 it answers by itself, where
// not a byte of the request reached an upstream. After any other reset ("connection
// termination", say) the upstream may have done what it was asked.
var notSent = []string{
	"no healthy upstream",
	"reset reason: remote connection failure",
	"reset reason: local connection failure",
	"reset reason: remote refused stream reset",
	"reset reason: overflow",
}

// maxReason is more than Envoy says of a reset.
const maxReason = 1024

func unreached(body io.Reader) bool {
	text, err := io.ReadAll(io.LimitReader(body, maxReason))
	return err == nil && slices.ContainsFunc(notSent, func(reason string) bool {
		return strings.Contains(string(text), reason)
	})
}

// statusError returns nil for a status of success.
func statusError(response *http.Response) error {
	status, byEnvoy := response.StatusCode, response.Header.Get(serviceTime) == ""
	switch {
	case status/100 == 2:
		return nil
	case status == http.StatusServiceUnavailable && byEnvoy && unreached(response.Body):
		return fmt.Errorf("%w: HTTP status %d from the proxy", tools.ErrUpstreamUnavailable, status)
	case status == http.StatusGatewayTimeout && byEnvoy:
		return fmt.Errorf("%w: HTTP status %d from the proxy", tools.ErrTimeout, status)
	default:
		return fmt.Errorf("%w: HTTP status %d", tools.ErrUpstreamStatus, status)
	}
}

// read returns the body of a successful answer. No content is an empty object,
// which is what an empty message is.
func (e *Executor) read(response *http.Response) ([]byte, error) {
	if response.StatusCode == http.StatusNoContent {
		return []byte("{}"), nil
	}
	if response.Header.Get("Content-Encoding") != "" {
		return nil, fmt.Errorf("%w: it has a content encoding", tools.ErrOutputInvalid)
	}
	kind, parameters, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return nil, fmt.Errorf("%w: it is not application/json", tools.ErrOutputInvalid)
	}
	if charset, found := parameters["charset"]; found && !strings.EqualFold(charset, "utf-8") {
		return nil, fmt.Errorf("%w: it is not UTF-8", tools.ErrOutputInvalid)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(e.limit)+1))
	if len(body) > e.limit {
		return body[:e.limit], &tools.LimitError{Limit: "response_bytes"}
	}
	return body, err
}
