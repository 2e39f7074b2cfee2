// SPDX-License-Identifier: Apache-2.0

package export

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// trail writes a log file of CloudTrail's shape: one object with all events in Records.
type trail struct {
	out      io.Writer
	subjects subjects
	begun    bool
}

func newCloudTrail(w io.Writer) Writer { return &trail{out: w} }

// trailEvent is an event of CloudTrail's shape. Those that are not of AWS have eventType
// ActivityLog and eventCategory ActivityAuditLog there.
type trailEvent struct {
	EventVersion       string          `json:"eventVersion"`
	UserIdentity       trailIdentity   `json:"userIdentity"`
	EventTime          string          `json:"eventTime"`
	EventSource        string          `json:"eventSource"`
	EventName          string          `json:"eventName"`
	UserAgent          string          `json:"userAgent,omitempty"`
	ErrorCode          string          `json:"errorCode,omitempty"`
	ErrorMessage       string          `json:"errorMessage,omitempty"`
	RequestParameters  json.RawMessage `json:"requestParameters"`
	ResponseElements   json.RawMessage `json:"responseElements"`
	Additional         trailMore       `json:"additionalEventData"`
	RequestID          string          `json:"requestID,omitempty"`
	EventID            string          `json:"eventID"`
	ReadOnly           bool            `json:"readOnly"`
	EventType          string          `json:"eventType"`
	EventCategory      string          `json:"eventCategory"`
	RecipientAccountID string          `json:"recipientAccountId,omitempty"`
}

type trailIdentity struct {
	Type        string `json:"type"`
	PrincipalID string `json:"principalId,omitempty"`
	UserName    string `json:"userName,omitempty"`
}

// trailMore is what has no place of its own.
type trailMore struct {
	Ledger       string          `json:"ledger"`
	Index        uint64          `json:"index"`
	Epoch        uint64          `json:"epoch"`
	Kind         string          `json:"kind"`
	Verdict      string          `json:"verdict,omitempty"`
	State        string          `json:"state,omitempty"`
	Reason       string          `json:"reason,omitempty"`
	Roles        []string        `json:"roles,omitempty"`
	BundleDigest string          `json:"bundleDigest,omitempty"`
	Commitments  []string        `json:"commitments,omitempty"`
	Body         json.RawMessage `json:"body,omitempty"`
}

// Write adds an event.
func (w *trail) Write(origin string, record []byte) error {
	r, err := rowOf(origin, record)
	if err != nil {
		return err
	}
	of := w.subjects.of(r)
	out := trailEvent{
		EventVersion: "1.11", EventTime: r.time().Truncate(time.Second).Format(time.RFC3339), EventSource: "writ",
		EventName: r.Kind, UserAgent: of.surface, RequestParameters: r.Arguments, ResponseElements: r.Result, RequestID: r.DecisionID,
		EventID: eventID(record), ReadOnly: of.effect == writv1.ToolEffect_TOOL_EFFECT_READ,
		EventType: "ActivityLog", EventCategory: "ActivityAuditLog", RecipientAccountID: r.Tenant,
		Additional: trailMore{
			Ledger: r.Origin, Index: *r.Index, Epoch: r.Epoch, Kind: r.Kind, Verdict: r.Verdict, State: r.State, Reason: r.Reason,
			Roles: of.roles, BundleDigest: r.BundleDigest, Commitments: r.Commitments, Body: r.Body,
		},
	}
	out.UserIdentity = identityOf(r, of)
	if r.decision != nil || r.outcome != nil {
		out.EventName = orUnknown(of.tool)
	}
	if refused(r) {
		out.ErrorCode, out.ErrorMessage = orUnknown(cmp.Or(r.Reason, r.State)), r.outcome.GetMessage()
	}
	text, err := line(out)
	if err != nil {
		return err
	}
	return w.add(strings.TrimSuffix(string(text), "\n"))
}

// identityOf says who called; of records of the agent itself, the agent.
func identityOf(r row, of subject) trailIdentity {
	switch {
	case of.user != "":
		return trailIdentity{Type: "User", PrincipalID: of.workload, UserName: of.user}
	case of.workload != "":
		return trailIdentity{Type: "Workload", PrincipalID: of.workload}
	case r.decision == nil && r.outcome == nil:
		return trailIdentity{Type: "Agent", PrincipalID: r.Origin}
	default:
		return trailIdentity{Type: "Unknown"}
	}
}

// refused says whether the call did not do what it was to do.
func refused(r row) bool {
	switch {
	case r.decision != nil:
		return r.decision.GetDecision().GetVerdict() != writv1.Verdict_VERDICT_ALLOW
	case r.outcome != nil:
		return r.outcome.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED
	default:
		return false
	}
}

// eventID is the leaf of a record in the form of a UUID of version 8, which RFC 9562
// leaves to whoever makes it.
func eventID(record []byte) string {
	leaf := rfc6962.DefaultHasher.HashLeaf(record)
	leaf[6], leaf[8] = leaf[6]&0x0f|0x80, leaf[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", leaf[0:4], leaf[4:6], leaf[6:8], leaf[8:10], leaf[10:16])
}

// add writes an event after what stands before it.
func (w *trail) add(text string) error {
	before := ",\n"
	if !w.begun {
		before, w.begun = "{\"Records\":[\n", true
	}
	_, err := io.WriteString(w.out, before+text)
	return err
}

// Close writes the end, without which the file is no JSON.
func (w *trail) Close() error {
	end := "\n]}\n"
	if !w.begun {
		end = "{\"Records\":[]}\n"
	}
	_, err := io.WriteString(w.out, end)
	return err
}
