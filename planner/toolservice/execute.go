// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// progressLines is how many lines of progress wait for a client that reads
// slowly; further ones are dropped until it has caught up.
const progressLines = 64

func (s *Server) execute(in *incoming) (*writv1.ExecuteResponse, error) {
	request := &writv1.ExecuteRequest{}
	s.admit(in, writv1.Surface_SURFACE_EXECUTE, func(r *agent.Request) *reasons.Error {
		return s.readProposal(in, request, r)
	})
	return s.run(in, nil)
}

func (s *Server) executeStream(in *incoming, stream grpc.ServerStream) error {
	request := &writv1.ExecuteStreamRequest{}
	s.admit(in, writv1.Surface_SURFACE_EXECUTE, func(r *agent.Request) *reasons.Error {
		refusal := s.read(in.data, request)
		if refusal == nil && len(request.ProtoReflect().GetUnknown()) > 0 {
			refusal = reasons.New(writv1.Reason_REASON_DECODE_ENVELOPE_INVALID, "", "the request has a field that this agent does not know")
		}
		return s.take(r, request.GetRequest(), refusal)
	})
	response, err := s.runReporting(in, stream)
	if err != nil {
		return err
	}
	return stream.SendMsg(&writv1.ExecuteStreamResponse{Event: &writv1.ExecuteStreamResponse_Result{Result: response}})
}

// runReporting is run with the tool's progress on its way to the client.
func (s *Server) runReporting(in *incoming, stream grpc.ServerStream) (*writv1.ExecuteResponse, error) {
	lines := newReporter(stream)
	defer lines.close() // also when the tool panics
	return s.run(in, lines.report)
}

// run carries out an admitted call, and returns when its outcome is durable.
func (s *Server) run(in *incoming, progress func(string)) (*writv1.ExecuteResponse, error) {
	admission := in.admission
	if outcome, ok := admission.EarlierOutcome(); ok {
		return repeated(in, outcome)
	}
	if refusal := admission.Refusal(); refusal != nil {
		return nil, refused(refusal, in.details())
	}
	execution := admission.Run(in.ctx, progress)
	if err := admission.Finish(execution.Outcome()); err != nil {
		s.log.ErrorContext(in.ctx, "an outcome was not recorded", "decision_id", admission.ID(), "error", err)
		return nil, refused(reasons.Wrap(err, writv1.Reason_REASON_LEDGER_UNAVAILABLE, "",
			"the call was carried out, and the agent cannot write how it ended"), in.details())
	}
	if execution.State == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		return nil, refused(&reasons.Error{Reason: execution.Reason, Message: execution.Message}, in.details())
	}
	response := &writv1.ExecuteResponse{
		DecisionId:  admission.ID(),
		State:       execution.State,
		Reason:      execution.Reason,
		Message:     execution.Message,
		Duration:    durationpb.New(execution.Duration),
		RecordIndex: admission.RecordIndex(),
	}
	if execution.JSON != nil {
		response.Result = &writv1.Json{Text: execution.JSON}
	}
	return response, nil
}

// repeated returns the outcome of the call that holds the idempotency key, under
// the id of the decision not to run it again; that one's record names the earlier.
func repeated(in *incoming, outcome *writv1.OutcomeRecord) (*writv1.ExecuteResponse, error) {
	if outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED {
		return nil, refused(&reasons.Error{Reason: outcome.GetReason(), Message: outcome.GetMessage()}, in.details())
	}
	response := &writv1.ExecuteResponse{
		DecisionId:      in.admission.ID(),
		State:           outcome.GetState(),
		Reason:          outcome.GetReason(),
		Message:         outcome.GetMessage(),
		Duration:        outcome.GetDuration(),
		RecordIndex:     in.admission.RecordIndex(),
		RepeatedOutcome: true,
	}
	if len(outcome.GetResult()) > 0 {
		response.Result = &writv1.Json{Text: outcome.GetResult()}
	}
	return response, nil
}

// reporter sends lines of progress from a goroutine of its own, so that a client
// which does not read holds up nothing but its own answer.
type reporter struct {
	lines chan string
	done  chan struct{}
}

func newReporter(stream grpc.ServerStream) *reporter {
	r := &reporter{lines: make(chan string, progressLines), done: make(chan struct{})}
	go r.send(stream)
	return r
}

// report MUST NOT be called after close.
func (r *reporter) report(line string) {
	select {
	case r.lines <- line:
	default:
	}
}

// close waits until what was taken is sent, or the client is gone.
func (r *reporter) close() {
	close(r.lines)
	<-r.done
}

func (r *reporter) send(stream grpc.ServerStream) {
	defer close(r.done)
	for line := range r.lines {
		event := &writv1.ExecuteStreamResponse{Event: &writv1.ExecuteStreamResponse_Progress{
			Progress: &writv1.Progress{Message: line},
		}}
		if stream.SendMsg(event) != nil {
			return // the client is gone; what it will not read is dropped
		}
	}
}
