// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/envoy/calls"
	"github.com/writ-dev/writ/envoy/extauthz"
	"github.com/writ-dev/writ/envoy/identity"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// registrar catches a service instead of serving it.
type registrar struct {
	method  grpc.MethodDesc
	service any
}

func (r *registrar) RegisterService(description *grpc.ServiceDesc, service any) {
	r.method, r.service = description.Methods[0], service
}

// checker is ext_authz's service, without a transport, as the rows have it.
func checker(tb testing.TB) *registrar {
	tb.Helper()
	row := &stand{row: rows[1], address: "127.0.0.1:10000"}
	dir := tb.TempDir()
	config := row.config(places{sockets: dir}, dir)
	if err := writeBundle(config.GetBundleDir(), row.catalogue(places{upstream: "127.0.0.1:10001"})); err != nil {
		tb.Fatal(err)
	}
	bundle, err := bundles.LoadDir(tb.Context(), config.GetBundleDir(), bundles.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	state := agent.NewState(1 << 20)
	log, _, err := ledger.Open(ledger.Options{Dir: filepath.Join(dir, "ledger"), Origin: "bench", MaxBytes: ledgerBytes, OnRecord: state.Fold})
	if err != nil {
		tb.Fatal(err)
	}
	keys, err := agent.OpenKeys(filepath.Join(dir, "keys"))
	if err != nil {
		tb.Fatal(err)
	}
	made, err := agent.New(tb.Context(), agent.Options{
		Bundle: bundle, Ledger: log, State: state, Keys: keys, Clock: time.Now, Random: rand.Reader,
		Floor: writv1.Durability_DURABILITY_PROCESS, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := made.Close(context.Background()); err != nil {
			tb.Error(err)
		}
		if err := log.Close(nil); err != nil {
			tb.Error(err)
		}
	})
	resolver, err := identity.New(config.GetIdentity())
	if err != nil {
		tb.Fatal(err)
	}
	desk := calls.New(calls.Options{Agent: made, Identity: resolver, Limits: wire.LimitsOf(config.GetLimits())})
	caught := &registrar{}
	extauthz.New(extauthz.Options{Desk: desk, Timeout: 5 * time.Second, Log: slog.New(slog.DiscardHandler)}).Register(caught)
	return caught
}

// checkOf is what Envoy sends of the call that the rows send.
func checkOf(tb testing.TB, order string) []byte {
	tb.Helper()
	header := func(name, value string) *corev3.HeaderValue {
		return &corev3.HeaderValue{Key: name, RawValue: []byte(value)}
	}
	path := fmt.Sprintf("/v1/tenants/%s/orders/%s/quote", tenant, order)
	body := strings.TrimSpace(arguments)
	text, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1234567890123456789", Method: "POST", Path: path, Host: domain, Protocol: "HTTP/1.1",
			Size: int64(len(body)), RawBody: []byte(body),
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
				header(":authority", domain), header(":method", "POST"), header(":path", path), header(":scheme", "http"),
				header("content-type", "application/json"), header("content-length", fmt.Sprint(len(body))),
				header(userHeader, user), header(roleHeader, role), header(tenantHeader, tenant),
				header("x-forwarded-proto", "http"), header("x-request-id", "3f0f0b0e-9f0c-4b2e-8d57-3f9fb1b1b1b1"),
				header("x-writ-envelope", strings.TrimSpace(envelope)),
			}},
		}},
		ContextExtensions: map[string]string{resources.UpstreamKey: upstreamName},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// ask has the service check one call, as gRPC does.
func (r *registrar) ask(ctx context.Context, check []byte) ([]byte, error) {
	codec := extauthz.Codec()
	answer, err := r.method.Handler(r.service, ctx, func(into any) error {
		return codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(check)}, into)
	}, nil)
	if err != nil {
		return nil, err
	}
	out, err := codec.Marshal(answer)
	return out.Materialize(), err
}

func TestTheCallOfTheRowsIsAdmitted(t *testing.T) {
	t.Parallel()
	text, err := checker(t).ask(t.Context(), checkOf(t, orderOf(1)))
	if err != nil {
		t.Fatal(err)
	}
	answer := &authv3.CheckResponse{}
	if err := proto.Unmarshal(text, answer); err != nil {
		t.Fatal(err)
	}
	if answer.GetOkResponse() == nil {
		t.Errorf("answered %v", answer)
	}
}

// BenchmarkCheck measures all that the agent does for a call with ext_authz, but
// for gRPC and Envoy's access log: one at a time, where each decision is a batch of
// its own, and 64 at a time, where those that wait share one.
func BenchmarkCheck(b *testing.B) {
	for _, together := range []int{1, 64} {
		b.Run(fmt.Sprint(together), func(b *testing.B) {
			service := checker(b)
			check := checkOf(b, orderOf(1))
			if _, err := service.ask(b.Context(), check); err != nil {
				b.Fatal(err)
			}
			var left atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			left.Store(int64(b.N))
			done := make(chan error, together)
			for range together {
				go func() {
					for left.Add(-1) >= 0 {
						if _, err := service.ask(b.Context(), check); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range together {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
