// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"slices"
	"strings"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// session writes what was read of the call's session.
func (s *sheet) session(f *writv1.SessionSummary) {
	if f == nil {
		return
	}
	kind := "minted"
	if f.GetAmbient() {
		kind = "ambient"
	}
	counts, principal := f.GetCounts(), f.GetPrincipalCounts()
	s.line("session read", labelled("", f.GetId()))
	s.escaped("session", fmt.Sprintf("%s, %d calls, %d writes, %d denials; of its principal %d, %d, %d", kind,
		counts.GetCalls(), counts.GetWrites(), counts.GetDenials(), principal.GetCalls(), principal.GetWrites(), principal.GetDenials()))
	s.escaped("session knows", strings.Join(present(map[string]bool{
		"a request of the user's": f.GetAttested(), "something untrusted": f.GetReadUntrusted(), "as much as it may": f.GetFull(),
	}), ", "))
	s.line("session carries", name(f.GetClassification(), "CLASSIFICATION_"))
	for _, of := range f.GetStepCounts() {
		s.escaped("earlier calls", fmt.Sprintf("%d of %s", of.GetCount(), word(of.GetTool())))
	}
	for _, step := range f.GetSteps() {
		ended := "not seen to succeed"
		if step.GetSucceeded() {
			ended = "succeeded"
		}
		s.escaped("earlier call", fmt.Sprintf("%s at %s, %s%s", word(step.GetTool()), step.GetTime().AsTime().Format(timeForm), ended, fields(step.GetFields())))
	}
	s.run(f.GetRun())
}

// run writes what was read of the run that the session is in.
func (s *sheet) run(r *writv1.RunSummary) {
	if r == nil {
		return
	}
	s.line("run", labelled("", r.GetId()))
	s.line("workflow", r.GetContract())
	s.line("feature", r.GetFeature())
	s.line("begun for", r.GetIntent())
	if r.GetBeginTime().IsValid() {
		s.line("begun", r.GetBeginTime().AsTime().Format(timeForm))
	}
	s.json("inputs", r.GetInputs())
	for _, of := range r.GetCounts() {
		s.escaped("calls in it", fmt.Sprintf("%d of %s", of.GetCount(), word(of.GetTool())))
	}
	s.list("in order", r.GetPath())
}

// advance writes that a call counts in a run.
func (s *sheet) advance(a *writv1.Advance) {
	s.line("counts in run", labelled("", a.GetRun()))
	if a.GetOrdered() {
		s.line("stands in order", "yes")
	}
}

// fields writes fields that were kept of a call.
func fields(kept []*writv1.KeptField) string {
	out := ""
	for _, field := range kept {
		out += ", " + word(field.GetPath()) + " = " + printable(field.GetValue())
	}
	return out
}

// present returns the words that hold, in their order.
func present(words map[string]bool) []string {
	var out []string
	for word, holds := range words {
		if holds {
			out = append(out, word)
		}
	}
	slices.Sort(out)
	return out
}

// provenance says where a value came from.
func provenance(v *writv1.ValueProvenance) string {
	parts := []string{"unknown"}
	if trust := name(v.GetTrust(), "TRUST_"); trust != "" {
		parts[0] = strings.ToLower(trust)
	}
	if len(v.GetSources()) > 0 {
		parts = append(parts, "from "+words(v.GetSources()))
	}
	if v.GetTrustedTime().IsValid() {
		parts = append(parts, "at "+v.GetTrustedTime().AsTime().Format(timeForm))
	}
	for _, object := range v.GetObjects() {
		parts = append(parts, fmt.Sprintf("in object %d", object))
	}
	parts = append(parts, present(map[string]bool{
		"of this request": v.GetOfRequest(), "of another tenant": v.GetForeignTenant(), "not for all to whom it goes": v.GetBeyondReaders(), "not read to its end": v.GetTruncated(),
		"its secrets said by the user": v.GetSecretsOfUser(),
	})...)
	if class := name(v.GetClassification(), "CLASSIFICATION_"); class != "" {
		parts = append(parts, strings.ToLower(class))
	}
	return strings.Join(parts, ", ")
}
