// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"encoding/hex"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// decisions are what was read of a ledger so far.
type decisions struct {
	all  []*Decision
	byID map[string]*Decision
}

func (d *decisions) add(bytes []byte) error {
	var record writv1.Record
	if err := canonical.Unmarshal(bytes, &record); err != nil {
		return err
	}
	id := hex.EncodeToString(record.GetDecisionId())
	switch record.GetKind() {
	case writv1.RecordKind_RECORD_KIND_DECISION:
		made := &Decision{ID: id, Record: &writv1.DecisionRecord{}}
		d.all, d.byID[id] = append(d.all, made), made
		return canonical.Unmarshal(record.GetBody(), made.Record)
	case writv1.RecordKind_RECORD_KIND_OUTCOME:
		outcome := &writv1.OutcomeRecord{}
		d.byID[id].Outcomes = append(d.byID[id].Outcomes, outcome)
		return canonical.Unmarshal(record.GetBody(), outcome)
	}
	return nil
}

// complete reports whether all decisions are there and every ALLOW has ended.
func (d *decisions) complete(want int) bool {
	if len(d.all) < want {
		return false
	}
	for _, made := range d.all {
		if made.Record.GetDecision().GetVerdict() == writv1.Verdict_VERDICT_ALLOW && len(made.Outcomes) == 0 {
			return false
		}
	}
	return true
}
