// SPDX-License-Identifier: Apache-2.0

package query

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxRequest bounds the JSON of a request that is recorded, as record.proto does.
const maxRequest = 32 << 10

// maxTenants bounds the names of tenants that are recorded, in bytes.
const maxTenants = 16 << 10

// guarded are the services that are read, and the role that reads them. A method that is
// added to one is recorded like the others.
var guarded = map[string]writv1.ReaderRole{
	writv1.RecordService_ServiceDesc.ServiceName: writv1.ReaderRole_READER_ROLE_AUDITOR,
	writv1.AgentService_ServiceDesc.ServiceName:  writv1.ReaderRole_READER_ROLE_OPERATOR,
}

// Guard stands before everything that is read: it asks who reads, and records what is
// asked for before anything of it is answered. What cannot be recorded is not read.
type Guard struct {
	access Access
	record func(context.Context, *writv1.ReadRecord) error
	log    *slog.Logger
}

// NewGuard returns a guard; record MUST return when its record is durable. A nil log is
// silent.
func NewGuard(access Access, record func(context.Context, *writv1.ReadRecord) error, log *slog.Logger) *Guard {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Guard{access: access, record: record, log: log}
}

// Unary is the guard of calls with one answer.
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := g.admit(ctx, info.FullMethod, request); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream is the guard of streams.
func (g *Guard) Stream(srv any, in grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if _, reads := roleOf(info.FullMethod); !reads {
		return handler(srv, in)
	}
	return handler(srv, &guardedStream{ServerStream: in, guard: g, method: info.FullMethod})
}

// guardedStream is a stream whose request is recorded when it comes. Its methods may be
// called as a stream's.
type guardedStream struct {
	grpc.ServerStream

	guard  *Guard
	method string
	mu     sync.Mutex
	// admitted says that the request is recorded; guarded by mu.
	admitted bool
}

// RecvMsg receives a request and has it recorded.
func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if err := s.guard.admit(s.Context(), s.method, m); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted = true
	return nil
}

// SendMsg sends nothing before a request is recorded.
func (s *guardedStream) SendMsg(m any) error {
	s.mu.Lock()
	admitted := s.admitted
	s.mu.Unlock()
	if !admitted {
		return status.Error(codes.Internal, "an answer before what was asked for is recorded")
	}
	return s.ServerStream.SendMsg(m)
}

// roleOf is the role that a method takes, and whether it is one that is read.
func roleOf(method string) (writv1.ReaderRole, bool) {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	role, reads := guarded[service]
	return role, reads
}

// admit records what a caller asks for, or says why it is not to be had.
func (g *Guard) admit(ctx context.Context, method string, request any) error {
	role, reads := roleOf(method)
	if !reads {
		return nil
	}
	who, err := g.access.may(ctx, role)
	if err != nil {
		g.log.WarnContext(ctx, "a reader is refused", "method", method, "error", err)
		return refused(role)
	}
	text, err := requestJSON(request)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	read := &writv1.ReadRecord{Reader: who.id, Tenants: who.tenants, Method: method, Request: text}
	if len(strings.Join(who.tenants, "")) > maxTenants {
		read.Tenants = nil
	}
	if err := g.record(ctx, read); err != nil {
		g.log.ErrorContext(ctx, "what is read cannot be recorded, and is not read", "reader", who.id, "method", method, "error", err)
		return status.Error(codes.Unavailable, "what is read cannot be recorded now, so nothing is; the collector's log says why")
	}
	return nil
}

// requestJSON is a request as it is recorded.
func requestJSON(request any) (string, error) {
	m, ok := request.(proto.Message)
	if !ok || proto.Size(m) > maxRequest {
		return "", fmt.Errorf("a request of more than %d bytes", maxRequest)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("the request has no JSON form: %w", err)
	}
	// protojson puts blanks where it likes.
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil || out.Len() > maxRequest {
		return "", fmt.Errorf("a request of more than %d bytes", maxRequest)
	}
	return out.String(), nil
}
