// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"google.golang.org/protobuf/encoding/protowire"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Fields that the fold reads of a decision that asks for an approval, and of no other:
// of a DecisionRecord, and of its Decision. They are most of a record, and of the time
// that it takes to read it (docs/benchmarks-ledger.md).
const (
	recordEnvelope  protowire.Number = 3
	recordArguments protowire.Number = 7
	recordDecision  protowire.Number = 9

	decisionVerdict     protowire.Number = 1
	decisionChecks      protowire.Number = 3
	decisionObligations protowire.Number = 4
	decisionRisk        protowire.Number = 6
)

// lean leaves out of the bodies of decisions what the fold does not read. What it
// returns is valid until the next.
type lean struct{ record, decision []byte }

// body returns a decision's body without what the fold does not read of it.
func (l *lean) body(raw []byte) ([]byte, error) {
	l.record = l.record[:0]
	for rest := raw; len(rest) > 0; {
		number, kind, n := protowire.ConsumeField(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		field := rest[:n]
		rest = rest[n:]
		switch {
		case number == recordEnvelope || number == recordArguments:
		case number == recordDecision && kind == protowire.BytesType:
			_, _, tag := protowire.ConsumeTag(field)
			decision, _ := protowire.ConsumeBytes(field[tag:])
			asks, err := l.cut(decision)
			if err != nil {
				return nil, err
			}
			if asks {
				return raw, nil
			}
			l.record = protowire.AppendBytes(protowire.AppendTag(l.record, number, kind), l.decision)
		default:
			l.record = append(l.record, field...)
		}
	}
	return l.record, nil
}

// cut has a decision in l.decision without what the fold does not read of it, or says
// that it asks for an approval.
func (l *lean) cut(raw []byte) (asks bool, err error) {
	l.decision = l.decision[:0]
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeField(raw)
		if n < 0 {
			return false, protowire.ParseError(n)
		}
		field := raw[:n]
		raw = raw[n:]
		switch {
		case number == decisionChecks || number == decisionObligations || number == decisionRisk:
			continue
		case number == decisionVerdict && kind == protowire.VarintType:
			_, _, tag := protowire.ConsumeTag(field)
			if verdict, _ := protowire.ConsumeVarint(field[tag:]); verdict == uint64(writv1.Verdict_VERDICT_NEEDS_APPROVAL) {
				return true, nil
			}
		}
		l.decision = append(l.decision, field...)
	}
	return false, nil
}
