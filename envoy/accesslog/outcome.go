// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"strings"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/writ-dev/writ/agent"
	"github.com/writ-dev/writ/envoy/resources"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// outcomeOf says how a call ended by what Envoy saw of it. A request that never
// reached the upstream did not start; one that was cut off on the way back may
// have had its effect, and failed.
func outcomeOf(entry *datav3.HTTPAccessLogEntry) agent.Outcome {
	common, response := entry.GetCommonProperties(), entry.GetResponse()
	outcome := agent.Outcome{
		State:         writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED,
		HTTPStatus:    int(response.GetResponseCode().GetValue()),
		RequestBytes:  int64(entry.GetRequest().GetRequestBodyBytes()),
		ResponseBytes: int64(response.GetResponseBodyBytes()),
		Duration:      common.GetTimeToLastDownstreamTxByte().AsDuration(),
	}
	flags := common.GetResponseFlags()
	switch {
	case neverSent(flags):
		outcome.State = writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED
		outcome.Reason = writv1.Reason_REASON_EXECUTION_UPSTREAM_UNAVAILABLE
		outcome.Message = "Envoy could not reach the upstream"
	case flags.GetUpstreamRequestTimeout() || flags.GetStreamIdleTimeout() || flags.GetDurationTimeout():
		fail(&outcome, writv1.Reason_REASON_EXECUTION_TIMEOUT, "the upstream did not answer in time")
	case left(flags) && streamed(response) && ok(outcome.HTTPStatus):
		// That is how a stream of events ends when its reader has seen enough: over
		// MCP, the one response it waited for.
	case left(flags):
		fail(&outcome, writv1.Reason_REASON_EXECUTION_CANCELLED, "the caller went away before the answer")
	case cutOff(flags):
		fail(&outcome, writv1.Reason_REASON_EXECUTION_FAILED, "the exchange with the upstream was cut off")
	case !ok(outcome.HTTPStatus):
		fail(&outcome, writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS, "the upstream answered with a failing status")
	}
	return outcome
}

func fail(outcome *agent.Outcome, reason writv1.Reason, message string) {
	outcome.State = writv1.OutcomeState_OUTCOME_STATE_FAILED
	outcome.Reason, outcome.Message = reason, message
}

func ok(status int) bool { return status >= 200 && status <= 299 }

// left reports whether the caller went away.
func left(flags *datav3.ResponseFlags) bool {
	return flags.GetDownstreamConnectionTermination() || flags.GetDownstreamRemoteReset()
}

// streamed reports whether the answer is a stream of events, which has no end of its own.
func streamed(response *datav3.HTTPResponseProperties) bool {
	kind, _, _ := strings.Cut(response.GetResponseHeaders()[resources.ContentType], ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// cutOff reports whether the upstream's answer did not come whole.
func cutOff(flags *datav3.ResponseFlags) bool {
	return flags.GetUpstreamRemoteReset() || flags.GetLocalReset() ||
		flags.GetUpstreamConnectionTermination() || flags.GetUpstreamProtocolError()
}

// neverSent reports whether nothing of the request reached the upstream.
func neverSent(flags *datav3.ResponseFlags) bool {
	return flags.GetFailedLocalHealthcheck() || flags.GetNoHealthyUpstream() ||
		flags.GetUpstreamConnectionFailure() || flags.GetUpstreamOverflow() ||
		flags.GetNoRouteFound() || flags.GetNoClusterFound() || flags.GetDnsResolutionFailure()
}
