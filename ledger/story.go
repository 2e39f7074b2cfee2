// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// maxDecisions bounds how many decision ids are kept to pair outcomes with.
	maxDecisions = 4 << 20
	// maxClockStep is how far the wall clock may go from the monotonic one within an
	// epoch before it is noted: clocks are set right by less.
	maxClockStep = time.Minute
)

// story holds what records say against each other: what each of them by itself does not
// show. Nothing of it is a fault: it takes the ledger's key to write such records, and
// what was pruned or is still under way looks alike.
type story struct {
	at      uint64 // epoch
	begins  bool   // its first record is to come
	known   bool   // its first record is held
	wall    int64  // wall clock minus monotonic, of the epoch
	clocked bool   // wall is known

	decisions map[[16]byte]told
	forgotten bool // decisions is not complete
}

// told is what is known of a decision.
type told struct {
	index           uint64
	allowed, closed bool
}

func newStory() story { return story{decisions: map[[16]byte]told{}} }

// epoch begins an epoch, whose first record follows if whole is true.
func (s *story) epoch(epoch uint64, whole bool) {
	s.at, s.begins, s.known, s.clocked = epoch, whole, whole, false
}

func (s *story) record(r *Report, record *writv1.Record) {
	isStart := record.GetKind() == writv1.RecordKind_RECORD_KIND_START
	switch {
	case s.begins && !isStart:
		r.note("record %d: epoch %d begins without a START", record.GetIndex(), s.at)
	case s.known && !s.begins && isStart:
		r.note("record %d: a second START of epoch %d", record.GetIndex(), s.at)
	}
	s.begins = false
	s.clock(r, record)
	s.pair(r, record)
}

// clock notes where the wall clock jumped against the monotonic one.
func (s *story) clock(r *Report, record *writv1.Record) {
	wall := int64(record.GetTimeUnixNs() - record.GetMonoNs()) //nolint:gosec // a difference; what overflows is a jump
	if step := time.Duration(wall - s.wall); s.clocked && step.Abs() > maxClockStep {
		r.note("record %d: the wall clock jumped by %v", record.GetIndex(), step.Round(time.Second))
	}
	s.wall, s.clocked = wall, true
}

// pair notes what does not pair.
func (s *story) pair(r *Report, record *writv1.Record) {
	if len(record.GetDecisionId()) != 16 {
		return
	}
	id := [16]byte(record.GetDecisionId())
	of, known := s.decisions[id]
	switch record.GetKind() {
	case writv1.RecordKind_RECORD_KIND_DECISION:
		if known {
			r.note("record %d: a second decision %x", record.GetIndex(), id)
		}
		if len(s.decisions) >= maxDecisions {
			s.forgotten = true
			clear(s.decisions)
		}
		s.decisions[id] = told{index: record.GetIndex(), allowed: allowed(record)}
	case writv1.RecordKind_RECORD_KIND_OUTCOME:
		switch {
		case known && of.closed:
			r.note("record %d: a second outcome of decision %x", record.GetIndex(), id)
		case !known && r.First == 0 && !s.forgotten:
			r.note("record %d: an outcome without a decision %x", record.GetIndex(), id)
		}
		if known {
			of.closed = true
			s.decisions[id] = of
		}
	}
}

func allowed(record *writv1.Record) bool {
	body, err := Body(record)
	d, ok := body.(*writv1.DecisionRecord)
	return err == nil && ok && d.GetDecision().GetVerdict() == writv1.Verdict_VERDICT_ALLOW
}

// end ends a ledger whose last record is an END: nothing is under way any more.
func (s *story) end(r *Report) {
	open, oldest := 0, told{}
	for _, of := range s.decisions {
		if !of.allowed || of.closed {
			continue
		}
		if open++; open == 1 || of.index < oldest.index {
			oldest = of
		}
	}
	if open > 0 {
		r.note("record %d: a call was allowed and has no outcome; %d such calls in all", oldest.index, open)
	}
}
