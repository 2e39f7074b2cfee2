// SPDX-License-Identifier: Apache-2.0

package query

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// WriteRecord writes everything recorded of a decision for a human to read: records in
// the order of their ledger, those of one ledger after those of another.
func WriteRecord(w io.Writer, records []*writv1.StoredRecord) error {
	s := &sheet{}
	for i, stored := range records {
		if i > 0 {
			s.b.WriteByte('\n')
		}
		s.record(viewOf(stored))
	}
	if _, err := w.Write(s.b.Bytes()); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// sheet is a record as text. What is at the margin is ours: every value is escaped, and
// stands behind its name or is indented.
type sheet struct{ b bytes.Buffer }

// title begins a part.
func (s *sheet) title(words string) { s.b.WriteString(words + "\n") }

// line writes a value after its name, if there is one.
func (s *sheet) line(label, value string) { s.escaped(label, printable(value)) }

// escaped writes what is made of words.
func (s *sheet) escaped(label, text string) {
	if text != "" {
		fmt.Fprintf(&s.b, "  %-19s %s\n", label, text)
	}
}

// list writes values after their name, quoted where one could pass for two.
func (s *sheet) list(label string, values []string) {
	s.escaped(label, words(values))
}

func words(values []string) string {
	out := make([]string, len(values))
	for i, value := range values {
		out[i] = word(value)
	}
	return strings.Join(out, ", ")
}

func (s *sheet) number(label string, n uint64) {
	if n != 0 {
		s.line(label, strconv.FormatUint(n, 10))
	}
}

func (s *sheet) duration(label string, d *durationpb.Duration) {
	if d.IsValid() {
		s.line(label, d.AsDuration().String())
	}
}

// json writes a recorded JSON text, indented, or as text where it is none.
func (s *sheet) json(label string, text []byte) {
	if len(text) == 0 {
		return
	}
	value := jsontext.Value(bytes.Clone(text))
	if err := value.Indent(jsontext.WithIndentPrefix("    "), jsontext.WithIndent("  ")); err != nil {
		s.line(label, string(text))
		return
	}
	fmt.Fprintf(&s.b, "  %s\n    %s\n", label, printableJSON(value))
}

func (s *sheet) record(v view) {
	if v.err != nil {
		s.title("UNREADABLE RECORD")
		s.line("ledger", v.stored.GetOrigin())
		s.line("error", v.err.Error())
		return
	}
	switch {
	case v.decision() != nil:
		s.title("DECISION  " + v.id())
		s.decision(v, v.decision())
	case v.outcome() != nil:
		s.title("OUTCOME  " + v.id())
		s.outcome(v, v.outcome())
	default:
		s.title(printable(v.kind()))
		if text, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(v.body); err == nil {
			s.json("body", text)
		}
	}
	s.place(v)
}

func (s *sheet) decision(v view, d *writv1.DecisionRecord) {
	s.line("verdict", v.result())
	s.line("reason", v.reason())
	s.line("decided by", name(d.GetOrigin(), "DECISION_ORIGIN_"))
	s.line("tool", d.GetTool())
	s.line("effect", name(d.GetToolEffect(), "TOOL_EFFECT_"))
	s.line("surface", name(d.GetSurface(), "SURFACE_"))
	s.line("upstream", d.GetUpstream())
	s.line("user", d.GetPrincipal().GetUser())
	s.line("workload", d.GetPrincipal().GetWorkload())
	s.list("roles", d.GetPrincipal().GetRoles())
	s.line("tenant", d.GetPrincipal().GetTenant())
	s.line("approval id", d.GetApprovalId())
	s.asks(d.GetApproval())
	s.line("session", labelled("", d.GetSession()))
	s.line("earlier decision", labelled("", d.GetEarlierDecisionId()))
	s.json("arguments", d.GetArguments())
	s.commitments(v.record)
	s.checks(d.GetDecision().GetChecks())
	s.risk(d.GetDecision().GetRisk(), d.GetReview())
	s.todo(d.GetDecision())
	s.facts(d.GetFacts())
	s.claims(d.GetEnvelope())
	s.title(" digests")
	s.line("identity", mac(d.GetIdentity()))
	s.line("schema", digest(d.GetSchemaDigest()))
	s.line("bundle", digest(v.record.GetBundleDigest()))
	s.line("input", mac(d.GetInputDigest()))
	s.line("request", digest(d.GetRequestDigest()))
	s.line("idempotency key", digest(d.GetIdempotencyDigest()))
	s.title(" record")
	s.line("durability", name(d.GetDurability(), "DURABILITY_"))
	s.duration("token lifetime", d.GetTokenLifetime())
	s.line("trace parent", d.GetTraceParent())
}

func (s *sheet) commitments(r *writv1.Record) {
	paths := make([]string, 0, len(r.GetCommitments()))
	for _, c := range r.GetCommitments() {
		paths = append(paths, c.GetPath())
	}
	s.list("kept out", paths)
	s.line("sealed", sealedText(r))
}

// sealedText says to what the values that were kept out are sealed, or why they are not;
// empty where nobody asked for it.
func sealedText(r *writv1.Record) string {
	switch sealed := r.GetSealed(); {
	case sealed == nil:
		return ""
	case sealed.GetGap() != writv1.OriginalsGap_ORIGINALS_GAP_UNSPECIFIED:
		return "nothing: " + name(sealed.GetGap(), "ORIGINALS_GAP_")
	default:
		return "to the key of " + sealed.GetDay()
	}
}

// checks writes every check with its outcome, grants among them, in the order in which
// they were evaluated.
func (s *sheet) checks(checks []*writv1.Check) {
	if len(checks) == 0 {
		return
	}
	s.title(" checks")
	wide := [3]int{}
	rows := make([][3]string, len(checks))
	for i, c := range checks {
		rows[i] = [3]string{word(name(c.GetOutcome(), "CHECK_OUTCOME_")), word(c.GetStage()), word(c.GetName())}
		for j := range wide {
			wide[j] = max(wide[j], len([]rune(rows[i][j])))
		}
	}
	for i, c := range checks {
		line := fmt.Sprintf("  %-*s  %-*s  %-*s", wide[0], rows[i][0], wide[1], rows[i][1], wide[2], rows[i][2])
		if reason := name(c.GetReason(), "REASON_"); reason != "" {
			line += "  " + printable(reason)
		}
		if c.GetField() != "" {
			line += "  " + word(c.GetField())
		}
		if c.GetMessage() != "" {
			line += "  " + printable(c.GetMessage())
		}
		s.title(strings.TrimRight(line, " "))
		s.room(c.GetRoom())
	}
}

// room writes how a budget stood that denied.
func (s *sheet) room(r *writv1.BudgetRoom) {
	if r == nil {
		return
	}
	text := fmt.Sprintf("%d left, %d asked, %s", r.GetLeft(), r.GetAsked(), name(r.GetDimension(), "DIMENSION_"))
	if r.GetRefillTime().IsValid() {
		text += ", room at " + r.GetRefillTime().AsTime().Format(timeForm)
	}
	s.escaped("  room", text)
}

// todo writes the obligations and effects of a decision.
func (s *sheet) todo(d *writv1.Decision) {
	if len(d.GetObligations())+len(d.GetEffects()) > 0 {
		s.title(" with an ALLOW")
	}
	for _, o := range d.GetObligations() {
		redact := o.GetRedactResponse()
		s.line("obligation", "redact "+redact.GetPath()+" ("+name(redact.GetSensitivity(), "SENSITIVITY_")+")")
	}
	for _, e := range d.GetEffects() {
		if e.GetReserve() != nil {
			s.reserve("reserves", e.GetReserve())
		}
		if keep := e.GetKeep(); keep != nil {
			s.escaped("keeps", word(keep.GetPath())+" = "+printable(keep.GetValue()))
		}
		s.line("uses approval", e.GetConsume().GetId())
		if advance := e.GetAdvance(); advance != nil {
			s.advance(advance)
		}
	}
}

func (s *sheet) reserve(label string, r *writv1.Reserve) {
	rolling := ""
	if r.GetRolling().IsValid() {
		rolling = ", in the last " + r.GetRolling().AsDuration().String()
	}
	s.escaped(label, fmt.Sprintf("%d %s of %s for [%s]%s", r.GetAmount(), name(r.GetDimension(), "DIMENSION_"), word(r.GetBudget()), words(r.GetKey()), rolling))
}

// facts writes what the decision read.
func (s *sheet) facts(f *writv1.Facts) {
	if f == nil {
		return
	}
	s.title(" facts")
	if f.GetTime().IsValid() {
		s.line("time", f.GetTime().AsTime().Format(timeForm))
	}
	for _, b := range f.GetBalances() {
		room := ""
		if b.GetRoomTime().IsValid() {
			room = ", room at " + b.GetRoomTime().AsTime().Format(timeForm)
		}
		if lease := b.GetLease(); lease != nil {
			room += fmt.Sprintf(", of a slice of %d in the window until %s", lease.GetCap(), lease.GetWindowEnd().AsTime().Format(timeForm))
			if lease.GetExhausted() {
				room += ", and there was no more"
			}
		}
		s.escaped("balance", fmt.Sprintf("%d %s taken of %s by [%s]%s", b.GetTaken(), name(b.GetDimension(), "DIMENSION_"), word(b.GetBudget()), words(b.GetKey()), room))
	}
	s.line("pin", name(f.GetPin().GetState(), "PIN_STATE_"))
	s.line("observed definition", f.GetPin().GetObservedDigest())
	s.approval(f.GetApproval())
	for _, stop := range f.GetStops() {
		s.line("stopped by", stop.GetId())
		s.until("stopped until", stop.GetExpireTime())
	}
	for _, w := range f.GetWitnesses() {
		s.line("witnessed", digest(w.GetExpression())+" "+name(w.GetOutcome(), "WITNESS_OUTCOME_"))
	}
	s.session(f.GetSession())
	for _, v := range f.GetValues() {
		s.escaped("value", word(v.GetPath())+": "+provenance(v))
	}
}

// claims writes what the planner said of the call.
func (s *sheet) claims(e *writv1.Envelope) {
	if e == nil {
		return
	}
	s.title(" claims of the planner, never a reason to allow")
	s.line("request id", e.GetRequestId())
	s.line("session", e.GetSession())
	s.line("workflow", e.GetWorkflow())
	s.line("intent", e.GetIntent())
	s.line("user role", e.GetUserRole())
	s.line("model route", e.GetModelRoute())
	s.line("model pin", e.GetModelPin())
	s.line("prompt version", e.GetPromptVersion())
	s.line("retrieval tenant", e.GetRetrieval().GetTenant())
	s.number("retrieval top k", uint64(e.GetRetrieval().GetTopK()))
	s.list("documents", documents(e.GetRetrieval()))
	s.line("tool", e.GetToolCall().GetName())
	s.list("policy checks", e.GetToolCall().GetPolicyChecks())
	if e.GetToolCall().GetApproved() {
		s.line("approved", "yes")
	}
}

func documents(r *writv1.Retrieval) []string {
	out := append([]string(nil), r.GetKbDocIds()...)
	for _, d := range r.GetDocuments() {
		out = append(out, d.GetId())
	}
	return out
}

func (s *sheet) outcome(v view, o *writv1.OutcomeRecord) {
	s.line("state", v.result())
	s.line("reason", v.reason())
	s.line("message", o.GetMessage())
	s.duration("duration", o.GetDuration())
	s.number("http status", uint64(o.GetHttpStatus()))
	s.number("request bytes", o.GetRequestBytes())
	s.number("response bytes", o.GetResponseBytes())
	s.json("result", o.GetResult())
	s.commitments(v.record)
	s.list("redacted", o.GetRedactions())
	for _, keep := range o.GetKept() {
		s.escaped("keeps", word(keep.GetPath())+" = "+printable(keep.GetValue()))
	}
	for _, r := range o.GetGivenBack() {
		s.reserve("given back", r)
	}
	for _, r := range o.GetOverrun() {
		s.reserve("overrun", r)
	}
	for _, spent := range o.GetSpent() {
		s.escaped("spent", fmt.Sprintf("%d %s", spent.GetAmount(), name(spent.GetDimension(), "DIMENSION_")))
	}
	s.line("result digest", mac(o.GetResultDigest()))
	s.title(" record")
}

// place writes where the record stands.
func (s *sheet) place(v view) {
	s.line("time", v.time().Format(timeForm))
	s.line("ledger", v.stored.GetOrigin())
	s.line("index", strconv.FormatUint(v.record.GetIndex(), 10))
	s.line("epoch", strconv.FormatUint(v.record.GetEpoch(), 10))
	s.line("tenant of record", v.record.GetTenant())
	if at := v.stored.GetReceiveTime(); at.IsValid() {
		s.line("stored", at.AsTime().UTC().Format(timeForm))
	}
}
