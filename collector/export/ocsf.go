// SPDX-License-Identifier: Apache-2.0

package export

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/transparency-dev/merkle/rfc6962"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// SchemaOCSF is the version of OCSF that events are of.
const SchemaOCSF = "1.8.0"

// Classes of OCSF, by what a record is.
const (
	classBase      = 0    // Base Event, in no category
	classLifecycle = 6002 // Application Lifecycle
	classAPI       = 6003 // API Activity
)

// ocsf writes OCSF events, one a line.
type ocsf struct {
	out      io.Writer
	subjects subjects
}

func newOCSF(w io.Writer) Writer { return &ocsf{out: w} }

// event is an event of OCSF. What is absent does not stand in it.
type event struct {
	ActivityID    int           `json:"activity_id"`
	ActivityName  string        `json:"activity_name,omitempty"`
	CategoryUID   int           `json:"category_uid"`
	ClassUID      int           `json:"class_uid"`
	TypeUID       int           `json:"type_uid"`
	SeverityID    int           `json:"severity_id"`
	Time          int64         `json:"time"` // milliseconds
	StatusID      int           `json:"status_id,omitempty"`
	Status        string        `json:"status,omitempty"`
	StatusCode    string        `json:"status_code,omitempty"`
	StatusDetail  string        `json:"status_detail,omitempty"`
	ActionID      int           `json:"action_id,omitempty"`
	DispositionID int           `json:"disposition_id,omitempty"`
	Disposition   string        `json:"disposition,omitempty"`
	Actor         *actor        `json:"actor,omitempty"`
	API           *api          `json:"api,omitempty"`
	App           *named        `json:"app,omitempty"`
	SrcEndpoint   *endpoint     `json:"src_endpoint,omitempty"`
	DstEndpoint   *endpoint     `json:"dst_endpoint,omitempty"`
	HTTPResponse  *httpResponse `json:"http_response,omitempty"`
	Policy        *named        `json:"policy,omitempty"`
	Metadata      metadata      `json:"metadata"`
	RawDataHash   *fingerprint  `json:"raw_data_hash,omitempty"`
	Unmapped      unmapped      `json:"unmapped"`
}

type (
	named struct {
		Name    string `json:"name,omitempty"`
		UID     string `json:"uid,omitempty"`
		Version string `json:"version,omitempty"`
	}
	actor struct {
		User    *user  `json:"user,omitempty"`
		AppName string `json:"app_name,omitempty"`
	}
	user struct {
		Name   string  `json:"name"`
		Groups []named `json:"groups,omitempty"`
		Org    *named  `json:"org,omitempty"`
	}
	api struct {
		Operation string    `json:"operation"`
		Service   *named    `json:"service,omitempty"`
		Request   *request  `json:"request,omitempty"`
		Response  *response `json:"response,omitempty"`
	}
	request struct {
		UID  string          `json:"uid"`
		Data json.RawMessage `json:"data,omitempty"`
	}
	response struct {
		Code         int             `json:"code,omitempty"`
		Error        string          `json:"error,omitempty"`
		ErrorMessage string          `json:"error_message,omitempty"`
		Data         json.RawMessage `json:"data,omitempty"`
	}
	endpoint struct {
		Name    string `json:"name,omitempty"`
		SvcName string `json:"svc_name,omitempty"`
	}
	httpResponse struct {
		Code    uint32 `json:"code"`
		Latency int64  `json:"latency,omitempty"` // milliseconds
	}
	metadata struct {
		Version        string   `json:"version"`
		Product        product  `json:"product"`
		Profiles       []string `json:"profiles,omitempty"`
		UID            string   `json:"uid"`
		CorrelationUID string   `json:"correlation_uid,omitempty"`
		EventCode      string   `json:"event_code"`
		LogName        string   `json:"log_name"`
		Sequence       uint64   `json:"sequence"`
		TenantUID      string   `json:"tenant_uid,omitempty"`
	}
	product struct {
		Name       string `json:"name"`
		VendorName string `json:"vendor_name"`
	}
	fingerprint struct {
		AlgorithmID int    `json:"algorithm_id"`
		Algorithm   string `json:"algorithm"`
		Value       string `json:"value"`
	}
	unmapped struct {
		Epoch       uint64          `json:"epoch"`
		Commitments []string        `json:"commitments,omitempty"`
		Body        json.RawMessage `json:"body,omitempty"`
	}
)

// Write adds a line.
func (w *ocsf) Write(origin string, record []byte) error {
	r, err := rowOf(origin, record)
	if err != nil {
		return err
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(record)
	out := event{
		SeverityID: 1, Time: r.time().UnixMilli(),
		Metadata: metadata{
			Version: SchemaOCSF, Product: product{Name: "writ", VendorName: "writ"}, UID: fmt.Sprintf("%x", leaf),
			CorrelationUID: r.DecisionID, EventCode: r.Kind, LogName: r.Origin, Sequence: *r.Index, TenantUID: r.Tenant,
		},
		// SHA-256 over 0x00 and the record: the leaf of the ledger's tree.
		RawDataHash: &fingerprint{AlgorithmID: 99, Algorithm: "RFC 6962 leaf SHA-256", Value: fmt.Sprintf("%x", leaf)},
		Unmapped:    unmapped{Epoch: r.Epoch, Commitments: r.Commitments, Body: r.Body},
	}
	of := w.subjects.of(r)
	switch {
	case r.decision != nil:
		out.decided(r, of)
	case r.outcome != nil:
		out.happened(r, of)
	default:
		out.other(r)
	}
	out.TypeUID = out.ClassUID*100 + out.ActivityID
	text, err := line(out)
	if err != nil {
		return err
	}
	_, err = w.out.Write(text)
	return err
}

// Close does nothing: every line is whole by itself.
func (*ocsf) Close() error { return nil }

// called says what was called, and by whom: what decisions and outcomes have in common.
func (e *event) called(r row, of subject) {
	e.CategoryUID, e.ClassUID = 6, classAPI
	e.ActivityID, e.ActivityName = 99, "Call"
	if of.effect == writv1.ToolEffect_TOOL_EFFECT_READ {
		e.ActivityID, e.ActivityName = 2, "Read"
	}
	e.Metadata.Profiles = []string{"security_control"}
	e.Actor = &actor{AppName: orUnknown(of.workload)}
	if of.user != "" {
		e.Actor.User = &user{Name: of.user}
		for _, role := range of.roles {
			e.Actor.User.Groups = append(e.Actor.User.Groups, named{Name: role})
		}
		if of.tenant != "" {
			e.Actor.User.Org = &named{Name: of.tenant}
		}
	}
	e.API = &api{Operation: orUnknown(of.tool)}
	if r.DecisionID != "" {
		e.API.Request = &request{UID: r.DecisionID, Data: r.Arguments}
	}
	e.SrcEndpoint = &endpoint{Name: orUnknown(of.surface), SvcName: of.workload}
	if of.upstream != "" {
		e.API.Service, e.DstEndpoint = &named{Name: of.upstream}, &endpoint{SvcName: of.upstream}
	}
}

func orUnknown(text string) string {
	if text == "" {
		return "unknown"
	}
	return text
}

// decided is a decision: what the control did.
func (e *event) decided(r row, of subject) {
	e.called(r, of)
	e.StatusCode = r.Reason
	if r.BundleDigest != "" {
		e.Policy = &named{Name: "bundle", UID: r.BundleDigest}
	}
	switch r.decision.GetDecision().GetVerdict() {
	case writv1.Verdict_VERDICT_ALLOW:
		e.StatusID, e.Status, e.ActionID, e.DispositionID = 1, "Success", 1, 1
	case writv1.Verdict_VERDICT_NEEDS_APPROVAL:
		// It was not let through: what is to come is another decision.
		e.StatusID, e.Status, e.ActionID = 2, "Failure", 2
		e.DispositionID, e.Disposition = 99, "Needs approval"
	default:
		e.StatusID, e.Status, e.ActionID, e.DispositionID = 2, "Failure", 2, 2
		e.SeverityID = 2
	}
}

// happened is an outcome: what came of the call.
func (e *event) happened(r row, of subject) {
	e.called(r, of)
	e.ActionID, e.DispositionID = 1, 1
	e.StatusCode, e.StatusDetail = r.Reason, r.outcome.GetMessage()
	e.API.Response = &response{Code: int(r.outcome.GetHttpStatus()), Data: r.Result}
	if code := r.outcome.GetHttpStatus(); code > 0 {
		e.HTTPResponse = &httpResponse{Code: code}
		if d := r.outcome.GetDuration(); d.IsValid() {
			e.HTTPResponse.Latency = d.AsDuration().Milliseconds()
		}
	}
	switch r.outcome.GetState() {
	case writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED:
		e.StatusID, e.Status = 1, "Success"
	case writv1.OutcomeState_OUTCOME_STATE_FAILED, writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED:
		e.StatusID, e.Status, e.SeverityID = 2, "Failure", 2
		e.API.Response.Error, e.API.Response.ErrorMessage = r.Reason, r.outcome.GetMessage()
	default:
		e.StatusID, e.Status = 99, r.State
	}
}

// other is a record of the agent itself.
func (e *event) other(r row) {
	switch r.record.GetKind() {
	case writv1.RecordKind_RECORD_KIND_START:
		e.lifecycle(r, 3, "Start")
	case writv1.RecordKind_RECORD_KIND_END:
		e.lifecycle(r, 4, "Stop")
	default:
		e.ClassUID, e.ActivityID, e.ActivityName = classBase, 99, r.Kind
	}
}

func (e *event) lifecycle(r row, id int, name string) {
	e.CategoryUID, e.ClassUID, e.ActivityID, e.ActivityName = 6, classLifecycle, id, name
	e.App = &named{Name: "writ agent", UID: r.Origin}
}
