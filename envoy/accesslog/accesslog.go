// SPDX-License-Identifier: Apache-2.0

// Package accesslog learns from Envoy's access log how calls ended that were let
// through, and finishes their admissions: ext_authz alone sees no response.
//
//	server := accesslog.New(accesslog.Options{Clock: time.Now, Log: log})
//	accesslogv3.RegisterAccessLogServiceServer(grpcServer, server)
//	go server.Tend(ctx, accesslog.Intervals{Sweep: 10 * time.Second, Patience: 10 * time.Minute})
//
// An entry is joined to its admission by the decision's id in dynamic metadata.
// The package promises that every admission it was told to expect is finished
// once: by its entry, or as UNOBSERVED when none came in time. Entries of
// requests that were denied, or that nobody expects, are passed over.
package accesslog

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy/extauthz"
	"github.com/writ-dev/writ/envoy/resources"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Options is what the server needs.
type Options struct {
	// Clock tells the time.
	Clock func() time.Time
	// Log is the agent's log.
	Log *slog.Logger
}

// Server is envoy.service.accesslog.v3.AccessLogService.
type Server struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	options Options

	// over is closed once the server drains and expects nothing: streams end then.
	over chan struct{}

	// mu guards what follows, and the closing of over.
	mu sync.Mutex
	// expected are released admissions by their id.
	expected map[string]expectation
	// draining says that Drain was called, ended that over is closed.
	draining, ended bool
}

// expectation is an admission whose end is not known yet.
type expectation struct {
	admission *agent.Admission
	since     time.Time
}

// New returns a server.
func New(options Options) *Server {
	return &Server{options: options, over: make(chan struct{}), expected: make(map[string]expectation)}
}

// Drain has the streams end, which Envoy never ends by itself, as soon as no admission
// is expected any more.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.endIfDone()
}

// endIfDone ends the streams of a server that drains and expects nothing. The caller
// holds mu.
func (s *Server) endIfDone() {
	if s.draining && !s.ended && len(s.expected) == 0 {
		s.ended = true
		close(s.over)
	}
}

// Expect takes over a released admission and finishes it when its entry comes.
func (s *Server) Expect(admission *agent.Admission) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected[admission.ID()] = expectation{admission: admission, since: s.options.Clock()}
}

// StreamAccessLogs reads entries until Envoy closes the stream, or the server has
// drained.
func (s *Server) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	read := make(chan error, 1)
	go func() { read <- s.read(stream) }()
	select {
	case err := <-read:
		return err
	case <-s.over:
		// The stream ends with this, and so does what reads it.
		return status.Error(codes.Unavailable, "the agent stops")
	}
}

// read takes entries until the stream ends.
func (s *Server) read(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		message, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return stream.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
		case status.Code(err) == codes.Canceled:
			return nil
		case err != nil:
			return err
		}
		for _, entry := range message.GetHttpLogs().GetLogEntry() {
			if !midway(entry) {
				s.join(stream.Context(), entry)
			}
		}
	}
}

// join finishes the admission that an entry speaks of.
func (s *Server) join(ctx context.Context, entry *datav3.HTTPAccessLogEntry) {
	metadata := entry.GetCommonProperties().GetMetadata().GetFilterMetadata()[resources.AuthzNamespace]
	id := metadata.GetFields()[extauthz.MetadataDecision].GetStringValue()
	if admission := s.take(id); admission != nil {
		s.finish(ctx, admission, outcomeOf(entry))
	}
}

// take removes an expected admission, so that it is finished once.
func (s *Server) take(id string) *agent.Admission {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.expected[id]
	if !ok {
		return nil
	}
	delete(s.expected, id)
	s.endIfDone()
	return found.admission
}

func (s *Server) finish(ctx context.Context, admission *agent.Admission, outcome agent.Outcome) {
	if err := admission.FinishLater(outcome); err != nil {
		s.options.Log.ErrorContext(ctx, "the outcome of a call was not recorded", "decision_id", admission.ID(), "error", err)
	}
}

// Intervals are how often Tend looks, and how long it has patience.
type Intervals struct {
	// Sweep is the time between looks.
	Sweep time.Duration
	// Patience is how long an entry may take. It is longer than any request.
	Patience time.Duration
}

// Tend finishes what no entry came for, until ctx is done; then it finishes all
// that is left.
func (s *Server) Tend(ctx context.Context, every Intervals) {
	ticker := time.NewTicker(every.Sweep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			s.sweep(ctx, s.options.Clock())
			return
		case <-ticker.C:
			s.sweep(ctx, s.options.Clock().Add(-every.Patience))
		}
	}
}

// sweep finishes as UNOBSERVED what was expected before the given time or then.
func (s *Server) sweep(ctx context.Context, before time.Time) {
	for _, admission := range s.late(before) {
		s.finish(ctx, admission, agent.Outcome{
			State:   writv1.OutcomeState_OUTCOME_STATE_UNOBSERVED,
			Message: "Envoy's access log has not told how the call ended",
		})
	}
}

func (s *Server) late(before time.Time) []*agent.Admission {
	s.mu.Lock()
	defer s.mu.Unlock()
	var late []*agent.Admission
	for id, expected := range s.expected {
		if !expected.since.After(before) {
			late = append(late, expected.admission)
			delete(s.expected, id)
		}
	}
	s.endIfDone()
	return late
}

// midway reports whether an entry was written before its request had ended.
func midway(entry *datav3.HTTPAccessLogEntry) bool {
	switch entry.GetCommonProperties().GetAccessLogType() {
	case datav3.AccessLogType_DownstreamStart, datav3.AccessLogType_DownstreamPeriodic:
		return true
	}
	return false
}
