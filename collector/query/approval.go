// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// asks writes what a human is asked for.
func (s *sheet) asks(r *writv1.ApprovalRequest) {
	if r == nil {
		return
	}
	s.line("approval rule", r.GetRule())
	s.list("asked by", r.GetAskedBy())
	s.list("approvers", r.GetRoles())
	s.number("quorum", uint64(r.GetQuorum()))
	s.line("risk", name(r.GetRisk(), "RISK_"))
	s.until("approval ends", r.GetExpireTime())
	s.bounds(r.GetAtMost())
	s.line("approval of", digest(r.GetBasis()))
	s.line("approval key", mac(r.GetKey()))
	if sealed := r.GetSealed(); sealed != nil {
		s.line("sealed arguments", digest(sealed.GetDigest()))
	}
	for _, key := range r.GetSealed().GetKeys() {
		s.line("sealed to", digest(key.GetRecipient()))
	}
}

// approval writes the approval that was held for the call.
func (s *sheet) approval(f *writv1.ApprovalFact) {
	if f == nil {
		return
	}
	s.line("approval", f.GetId())
	s.list("approved by", f.GetApprovedBy())
	s.line("denied by", f.GetDeniedBy())
	s.until("approval until", f.GetExpireTime())
	s.line("approval is of", digest(f.GetBasis()))
	s.bounds(f.GetAtMost())
}

// bounds writes what an approval lets through beside the call that asked.
func (s *sheet) bounds(most []*writv1.ApprovalBound) {
	for _, bound := range most {
		s.line("approval of at most", fmt.Sprintf("%s %d", printable(bound.GetField()), bound.GetValue()))
	}
}

func (s *sheet) until(label string, at *timestamppb.Timestamp) {
	if at.IsValid() {
		s.line(label, at.AsTime().UTC().Format(timeForm))
	}
}

// Printable returns a text of somebody else's as a terminal may show it, on one line:
// what would not be seen, or move what was written, is escaped.
func Printable(text string) string { return printable(text) }

// PrintableJSON does the same to a JSON text, whose value stays what it was.
func PrintableJSON(text []byte) []byte { return printableJSON(text) }

// Provenance says in words where a value came from.
func Provenance(v *writv1.ValueProvenance) string { return printable(provenance(v)) }
