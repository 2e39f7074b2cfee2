// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc/credentials"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// target is a receiver. Every option is given to the exporters, for what is not given
// they take from the environment: what is in force is what the configuration says, of
// which the ledger has the digest.
type target struct {
	config  *writv1.OtlpConfig
	tls     *tls.Config
	headers map[string]string
}

const (
	// exportTime bounds one try, and retryTime all tries of one export.
	exportTime = 3 * time.Second
	retryTime  = 4 * time.Second
	// firstRetry and lastRetry bound the pause between two tries.
	firstRetry = 200 * time.Millisecond
	lastRetry  = time.Second

	tracesPath  = "/v1/traces"
	metricsPath = "/v1/metrics"
)

func (t target) http() bool {
	return t.config.GetProtocol() == writv1.OtlpProtocol_OTLP_PROTOCOL_HTTP
}

func (t target) spans(ctx context.Context) (sdktrace.SpanExporter, error) {
	endpoint := t.config.GetEndpoint()
	if t.http() {
		secure := otlptracehttp.WithInsecure()
		if t.tls != nil {
			secure = otlptracehttp.WithTLSClientConfig(t.tls)
		}
		return otlptracehttp.New(ctx, secure, otlptracehttp.WithEndpoint(endpoint), otlptracehttp.WithURLPath(t.config.GetPathPrefix()+tracesPath),
			otlptracehttp.WithHeaders(t.headers), otlptracehttp.WithTimeout(exportTime), otlptracehttp.WithCompression(otlptracehttp.NoCompression),
			otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: retryTime}))
	}
	secure := otlptracegrpc.WithInsecure()
	if t.tls != nil {
		secure = otlptracegrpc.WithTLSCredentials(credentials.NewTLS(t.tls))
	}
	return otlptracegrpc.New(ctx, secure, otlptracegrpc.WithEndpoint(endpoint), otlptracegrpc.WithHeaders(t.headers), otlptracegrpc.WithTimeout(exportTime),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: retryTime}))
}

func (t target) metrics(ctx context.Context) (metric.Exporter, error) {
	endpoint := t.config.GetEndpoint()
	if t.http() {
		secure := otlpmetrichttp.WithInsecure()
		if t.tls != nil {
			secure = otlpmetrichttp.WithTLSClientConfig(t.tls)
		}
		return otlpmetrichttp.New(ctx, secure, otlpmetrichttp.WithEndpoint(endpoint), otlpmetrichttp.WithURLPath(t.config.GetPathPrefix()+metricsPath),
			otlpmetrichttp.WithHeaders(t.headers), otlpmetrichttp.WithTimeout(exportTime), otlpmetrichttp.WithCompression(otlpmetrichttp.NoCompression),
			otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: retryTime}))
	}
	secure := otlpmetricgrpc.WithInsecure()
	if t.tls != nil {
		secure = otlpmetricgrpc.WithTLSCredentials(credentials.NewTLS(t.tls))
	}
	return otlpmetricgrpc.New(ctx, secure, otlpmetricgrpc.WithEndpoint(endpoint), otlpmetricgrpc.WithHeaders(t.headers), otlpmetricgrpc.WithTimeout(exportTime),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: retryTime}))
}

const (
	// maxHeaders bounds the file of headers, and headerCount the headers in it.
	maxHeaders  = 64 << 10
	headerCount = 64
)

// readHeaders reads a file of headers. Errors name lines, and never what is in them.
func readHeaders(path string) (map[string]string, error) {
	if path == "" {
		return map[string]string{}, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxHeaders+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxHeaders {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxHeaders)
	}
	headers, err := parseHeaders(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return headers, nil
}

func parseHeaders(text []byte) (map[string]string, error) {
	headers := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxHeaders+1)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		_, twice := headers[name]
		switch {
		case !found || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
			return nil, fmt.Errorf("%d: not a header of the form \"name: value\"", number)
		case twice:
			return nil, fmt.Errorf("%d: the header stands there a second time", number)
		case len(headers) == headerCount:
			return nil, fmt.Errorf("%d: more than %d headers", number, headerCount)
		}
		headers[name] = value
	}
	return headers, errors.Join(lines.Err())
}
