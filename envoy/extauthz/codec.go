// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"context"
	"fmt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Names of the service and of its one method.
const (
	checkService = "envoy.service.auth.v3.Authorization"
	checkMethod  = "Check"
)

// description is the service as its proto describes it, with a method that reads
// and writes the wire form itself.
var description = grpc.ServiceDesc{
	ServiceName: checkService,
	HandlerType: (*checker)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: checkMethod, Handler: handle}},
	Metadata:    authv3.Authorization_ServiceDesc.Metadata,
}

type checker interface {
	check(ctx context.Context, c *check) answer
}

// Register adds the server to a gRPC server, which MUST have been made with
// grpc.ForceServerCodecV2([Codec]()).
func (s *Server) Register(registrar grpc.ServiceRegistrar) {
	registrar.RegisterService(&description, s)
}

func handle(service any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	server, ok := service.(checker)
	if !ok {
		return nil, fmt.Errorf("the service is a %T", service)
	}
	read := &check{}
	if err := decode(read); err != nil {
		return nil, err
	}
	if interceptor == nil {
		return server.check(ctx, read), nil
	}
	info := &grpc.UnaryServerInfo{Server: service, FullMethod: "/" + checkService + "/" + checkMethod}
	return interceptor(ctx, read, info, func(ctx context.Context, request any) (any, error) {
		read, ok := request.(*check)
		if !ok {
			return nil, fmt.Errorf("the request became a %T", request)
		}
		return server.check(ctx, read), nil
	})
}

// Codec returns the codec of the gRPC server: the package's own for Check, and
// protobuf's for every other message.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

type codec struct{ encoding.CodecV2 }

// Marshal takes an answer as it is.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if bytes, ok := v.(answer); ok {
		return mem.BufferSlice{mem.SliceBuffer(bytes)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal scans a check. One that cannot be read is no error of gRPC, which
// would leave it to Envoy what the caller gets: the server denies it.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	read, ok := v.(*check)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	read.broken = read.scan(data.Materialize())
	return nil
}
