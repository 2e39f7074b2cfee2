// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Bounds of what records are found by, in characters, as the protos have them. Bodies are
// not validated on their way in; what is longer can be asked for by nobody, and is not
// found.
const (
	maxTool      = 128
	maxTenant    = 128
	maxWorkload  = 2048
	maxUser      = 256
	maxWorkflow  = 128
	maxRequestID = 256
	maxCheck     = 128
	maxOrigin    = 512
	// maxChecks bounds how many failed checks of a decision it is found by.
	maxChecks = 32
)

// Entry is what a filter sees of a record. Empty is what it does not have.
type Entry struct {
	Origin string
	// Time is in nanoseconds since the Unix epoch.
	Time int64
	Kind writv1.RecordKind
	// DecisionID and Bundle are bytes.
	DecisionID, Bundle, Tenant string
	// Reason is a decision's, or an outcome's own.
	Reason writv1.Reason
	Subject
}

// Subject is what an outcome is compared by as its decision is.
type Subject struct {
	Tool     string
	Verdict  int32
	Workload string
	User     string
	// Session and TraceID are bytes.
	Session, TraceID string
	// Workflow is the contract of the run that the session was in.
	Workflow string
	// RequestID is the planner's own.
	RequestID string
	// Checks are the names of the checks that failed, each between line feeds.
	Checks string
}

// Read returns what filters see of a record. The subject of an outcome is its decision's:
// Read leaves it empty. The error says that the body of a decision is none.
func Read(origin string, r *writv1.Record) (Entry, error) {
	out := Entry{
		Origin: origin, Time: int64(min(r.GetTimeUnixNs(), math.MaxInt64)), Kind: r.GetKind(), //nolint:gosec // bounded
		DecisionID: string(r.GetDecisionId()), Bundle: string(r.GetBundleDigest()), Tenant: bounded(r.GetTenant(), maxTenant),
	}
	switch out.Kind {
	case writv1.RecordKind_RECORD_KIND_DECISION:
		body, err := ledger.Body(r)
		if err != nil {
			return Entry{}, err
		}
		if d, ok := body.(*writv1.DecisionRecord); ok {
			out.Reason, out.Subject = d.GetDecision().GetReason(), subjectOf(d)
		}
	case writv1.RecordKind_RECORD_KIND_OUTCOME, writv1.RecordKind_RECORD_KIND_SESSION,
		writv1.RecordKind_RECORD_KIND_OBSERVATION, writv1.RecordKind_RECORD_KIND_WORKFLOW, writv1.RecordKind_RECORD_KIND_READ:
		out.readOther(r)
	}
	return out, nil
}

// readOther takes what a body that is no decision is found by. One that is none has
// nothing.
func (e *Entry) readOther(r *writv1.Record) {
	body, err := ledger.Body(r)
	if err != nil {
		return
	}
	switch b := body.(type) {
	case *writv1.OutcomeRecord:
		e.Reason = b.GetReason()
	case *writv1.SessionRecord:
		e.Session = exactly(b.GetSession(), 16)
	case *writv1.ObservationRecord:
		e.Session = exactly(b.GetSession(), 16)
	case *writv1.ReadRecord:
		e.Workload = bounded(b.GetReader(), maxWorkload)
	case *writv1.WorkflowRecord:
		e.Session, e.Workflow = exactly(b.GetSession(), 16), bounded(b.GetContract(), maxWorkflow)
	}
}

func subjectOf(d *writv1.DecisionRecord) Subject {
	return Subject{
		Tool: bounded(d.GetTool(), maxTool), Verdict: int32(d.GetDecision().GetVerdict()),
		Workload: bounded(d.GetPrincipal().GetWorkload(), maxWorkload), User: bounded(d.GetPrincipal().GetUser(), maxUser),
		Session: exactly(d.GetSession(), 16), TraceID: traceOf(d.GetTraceParent()),
		Workflow:  bounded(d.GetFacts().GetSession().GetRun().GetContract(), maxWorkflow),
		RequestID: bounded(d.GetEnvelope().GetRequestId(), maxRequestID),
		Checks:    failed(d.GetDecision().GetChecks()),
	}
}

// failed are the names of the checks that did not hold, each once.
func failed(checks []*writv1.Check) string {
	var names []string
	for _, c := range checks {
		name := bounded(c.GetName(), maxCheck)
		bad := c.GetOutcome() == writv1.CheckOutcome_CHECK_OUTCOME_FAIL || c.GetOutcome() == writv1.CheckOutcome_CHECK_OUTCOME_ERROR
		if bad && name != "" && !strings.Contains(name, "\n") && len(names) < maxChecks && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "\n" + strings.Join(names, "\n") + "\n"
}

// traceOf is the trace id of a W3C traceparent header, such as
// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".
func traceOf(parent string) string {
	parts := strings.Split(parent, "-")
	if len(parts) < 4 || len(parts[0]) != 2 || len(parts[1]) != 32 {
		return ""
	}
	id, err := hex.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	return string(id)
}

func exactly(b []byte, n int) string {
	if len(b) != n {
		return ""
	}
	return string(b)
}

func bounded(s string, most int) string {
	if utf8.RuneCountInString(s) > most {
		return ""
	}
	return s
}
