// SPDX-License-Identifier: Apache-2.0

package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Object is a record as JSON. What is absent does not stand in it.
type Object struct {
	Time         string          `json:"time,omitempty"`
	ReceiveTime  string          `json:"receive_time,omitempty"`
	Origin       string          `json:"origin"`
	Index        *uint64         `json:"index,omitempty"`
	Epoch        uint64          `json:"epoch,omitempty"`
	Kind         string          `json:"kind,omitempty"`
	DecisionID   string          `json:"decision_id,omitempty"`
	Verdict      string          `json:"verdict,omitempty"`
	State        string          `json:"state,omitempty"`
	Reason       string          `json:"reason,omitempty"`
	Tool         string          `json:"tool,omitempty"`
	Tenant       string          `json:"tenant,omitempty"`
	Workload     string          `json:"workload,omitempty"`
	User         string          `json:"user,omitempty"`
	Roles        []string        `json:"roles,omitempty"`
	BundleDigest string          `json:"bundle_digest,omitempty"`
	Arguments    json.RawMessage `json:"arguments,omitempty"`
	Result       json.RawMessage `json:"result,omitempty"`
	Commitments  []string        `json:"commitments,omitempty"`
	Sealed       string          `json:"sealed,omitempty"`
	Body         json.RawMessage `json:"body,omitempty"`
	Error        string          `json:"error,omitempty"`
	Record       []byte          `json:"record,omitempty"` // where it could not be read
}

// WriteJSON writes records as JSON, one object a line: what lists and filters need at
// the top, with the whole body in the JSON form of its message under "body". Bytes are
// in base64 there, and in hexadecimal at the top. "arguments" and "result" are the JSON
// values that were recorded; "commitments" are the paths of the values that were not, and "sealed" says whether they
// can be opened.
func WriteJSON(w io.Writer, records []*writv1.StoredRecord) error {
	for _, stored := range records {
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(objectOf(viewOf(stored))); err != nil {
			return fmt.Errorf("write records: %w", err)
		}
		if _, err := w.Write(printableJSON(line.Bytes())); err != nil {
			return fmt.Errorf("write records: %w", err)
		}
	}
	return nil
}

// ObjectOf is the object of a record.
func ObjectOf(stored *writv1.StoredRecord) Object { return objectOf(viewOf(stored)) }

func objectOf(v view) Object {
	out := Object{Origin: v.stored.GetOrigin()}
	if v.stored.GetReceiveTime() != nil {
		out.ReceiveTime = v.stored.GetReceiveTime().AsTime().Format(time.RFC3339Nano)
	}
	if v.err != nil {
		out.Error, out.Record = v.err.Error(), v.stored.GetRecord()
		return out
	}
	r, d, o := v.record, v.decision(), v.outcome()
	index := r.GetIndex()
	out.Time, out.Index, out.Epoch, out.Kind = v.time().Format(time.RFC3339Nano), &index, r.GetEpoch(), v.kind()
	out.DecisionID, out.Tenant, out.BundleDigest, out.Reason = v.id(), r.GetTenant(), digest(r.GetBundleDigest()), v.reason()
	if d != nil {
		who := d.GetPrincipal()
		out.Verdict, out.Tool, out.Workload, out.User, out.Roles = v.result(), d.GetTool(), who.GetWorkload(), who.GetUser(), who.GetRoles()
		out.Arguments = strict(d.GetArguments())
	}
	if o != nil {
		out.State, out.Result = v.result(), strict(o.GetResult())
	}
	for _, c := range r.GetCommitments() {
		out.Commitments = append(out.Commitments, c.GetPath())
	}
	out.Sealed = sealedText(r)
	if out.Body, v.err = bodyJSON(v); v.err != nil {
		out.Error = v.err.Error()
	}
	return out
}

// bodyJSON is the body in the JSON form of its message, without the blanks that
// protojson puts where it likes.
func bodyJSON(v view) (json.RawMessage, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(v.body)
	if err != nil {
		return nil, fmt.Errorf("the body has no JSON form: %w", err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return nil, fmt.Errorf("the body has no JSON form: %w", err)
	}
	return out.Bytes(), nil
}

// strict returns a recorded JSON text if every reader reads it alike: one value, UTF-8,
// no key twice. Otherwise it stands in the body only.
func strict(text []byte) json.RawMessage {
	if len(text) == 0 || !jsontext.Value(text).IsValid() {
		return nil
	}
	return text
}
