// SPDX-License-Identifier: Apache-2.0

package query

import (
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// view is a stored record as it was read. Where err is set the record is not one of
// its ledger's, and nothing in it is shown as if it were.
type view struct {
	stored *writv1.StoredRecord
	record *writv1.Record
	body   proto.Message
	err    error
}

func viewOf(stored *writv1.StoredRecord) view {
	v := view{stored: stored, record: &writv1.Record{}}
	if v.err = canonical.Unmarshal(stored.GetRecord(), v.record); v.err != nil {
		return v
	}
	if want := ledger.LogID(stored.GetOrigin()); string(v.record.GetLogId()) != string(want[:]) {
		v.err = errors.New("the record belongs to another ledger")
		return v
	}
	v.body, v.err = ledger.Body(v.record)
	return v
}

func (v view) decision() *writv1.DecisionRecord {
	d, _ := v.body.(*writv1.DecisionRecord)
	return d
}

func (v view) outcome() *writv1.OutcomeRecord {
	o, _ := v.body.(*writv1.OutcomeRecord)
	return o
}

func (v view) id() string { return hex.EncodeToString(v.record.GetDecisionId()) }

func (v view) kind() string { return name(v.record.GetKind(), "RECORD_KIND_") }

// result is the verdict of a decision or the state of an outcome.
func (v view) result() string {
	switch {
	case v.decision() != nil:
		return name(v.decision().GetDecision().GetVerdict(), "VERDICT_")
	case v.outcome() != nil:
		return name(v.outcome().GetState(), "OUTCOME_STATE_")
	default:
		return ""
	}
}

func (v view) reason() string {
	if v.decision() != nil {
		return name(v.decision().GetDecision().GetReason(), "REASON_")
	}
	return name(v.outcome().GetReason(), "REASON_")
}

// time is when the record says that it was written.
func (v view) time() time.Time { return timeOf(v.record.GetTimeUnixNs()) }

// timeOf is the time of a record. One beyond what a time can be is the last one.
func timeOf(ns uint64) time.Time {
	return time.Unix(0, int64(min(ns, math.MaxInt64))).UTC() //nolint:gosec // bounded
}

// name is the name of an enum's value without the enum's own; nothing for the zero.
func name(value interface{ String() string }, prefix string) string {
	out := strings.TrimPrefix(value.String(), prefix)
	if out == "UNSPECIFIED" {
		return ""
	}
	return out
}

// digest is a SHA-256 as it is printed, and mac an HMAC.
func digest(b []byte) string { return labelled("sha256:", b) }

func mac(b []byte) string { return labelled("hmac-sha256:", b) }

func labelled(label string, b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return label + hex.EncodeToString(b)
}

// principal is who is named in a line: the user, or else the workload.
func principal(p *writv1.Principal) string {
	if p.GetUser() != "" {
		return p.GetUser()
	}
	return p.GetWorkload()
}
