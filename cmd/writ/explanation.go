// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/agent/replay"
	"github.com/writ-dev/writ/collector/query"
)

// explanation is what is told of a decision; who reads it decides how much is there.
type explanation struct {
	Decision   string `json:"decision_id"`
	Verdict    string `json:"verdict"`
	Reason     string `json:"reason"`
	Tool       string `json:"tool"`
	Field      string `json:"field,omitempty"`
	ToPass     string `json:"to_pass,omitempty"`
	ApprovalID string `json:"approval_id,omitempty"`

	Checks []explainedCheck `json:"checks,omitempty"`
	Values []explainedValue `json:"values,omitempty"`
	// Risk is the score and what it is made of, and whether a human is to review the call.
	Risk   string `json:"risk,omitempty"`
	Review bool   `json:"review,omitempty"`
	// record is the whole record for people, the checks among it.
	record string

	Bound *explainedBinding `json:"bound_to,omitempty"`
	Facts json.RawMessage   `json:"facts,omitempty"`
	// Replay is recomputed, differs, or not_replayable and why.
	Replay string `json:"replay,omitempty"`
}

type explainedCheck struct {
	Stage   string `json:"stage"`
	Check   string `json:"check"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message,omitempty"`
}

// explainedValue is where a value among the arguments came from.
type explainedValue struct {
	Path       string   `json:"path"`
	Provenance string   `json:"provenance"`
	Brought    []string `json:"brought_by,omitempty"`
}

// explainedBinding is what a decision is bound to.
type explainedBinding struct {
	Ledger       string `json:"ledger"`
	Index        uint64 `json:"index"`
	Epoch        uint64 `json:"epoch"`
	BundleDigest string `json:"bundle_digest"`
	SchemaDigest string `json:"schema_digest,omitempty"`
	Identity     string `json:"identity,omitempty"`
	Request      string `json:"request_digest,omitempty"`
}

// auditor adds what the decision is bound to, the facts, and whether it can be made
// again.
func (e *explainer) auditor(ctx context.Context, out *explanation) error {
	out.Bound = &explainedBinding{
		Ledger: e.stored[0].GetOrigin(), Index: e.record.GetIndex(), Epoch: e.record.GetEpoch(),
		BundleDigest: fmt.Sprintf("sha256:%x", e.record.GetBundleDigest()), Identity: fmt.Sprintf("%x", e.body.GetIdentity()),
		Request: fmt.Sprintf("%x", e.body.GetRequestDigest()),
	}
	if digest := e.body.GetSchemaDigest(); len(digest) > 0 {
		out.Bound.SchemaDigest = fmt.Sprintf("sha256:%x", digest)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e.body.GetFacts())
	if err != nil {
		return fmt.Errorf("write the facts: %w", err)
	}
	// protojson varies its spaces on purpose.
	var facts bytes.Buffer
	if err := json.Compact(&facts, text); err != nil {
		return fmt.Errorf("write the facts: %w", err)
	}
	out.Facts = facts.Bytes()
	if e.bundle == "" {
		return nil
	}
	out.Replay, err = e.replay(ctx)
	return err
}

// replay decides again over the recorded facts, under the bundle that decided.
func (e *explainer) replay(ctx context.Context) (string, error) {
	bundle, err := bundles.LoadDir(ctx, e.bundle, bundles.Options{})
	if err != nil {
		return "", err
	}
	if digest := bundle.Digest(); string(digest[:]) != string(e.record.GetBundleDigest()) {
		return fmt.Sprintf("not_replayable(bundle: this one is sha256:%x)", digest), nil
	}
	again, err := replay.Decide(bundle, e.record, e.body)
	switch {
	case err != nil:
		return "", err
	case again.Decision == nil:
		return "not_replayable(" + again.Why + ")", nil
	case !again.Same:
		return fmt.Sprintf("differs: decided again it is %s, %s", policy.VerdictName(again.Decision.GetVerdict()), reasonName(again.Decision.GetReason())), nil
	default:
		return "recomputed: the same decision to the byte", nil
	}
}

func (x *explanation) writeJSON(w io.Writer) error {
	text, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return fmt.Errorf("write the explanation: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", query.PrintableJSON(text))
	return err
}

func (x *explanation) writeText(w io.Writer) error {
	var b strings.Builder
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-10s%s\n", label, query.Printable(text))
		}
	}
	fmt.Fprintf(&b, "%s  %s\n", x.Verdict, x.Reason)
	line("decision", x.Decision)
	line("tool", x.Tool)
	line("field", x.Field)
	line("to pass", x.ToPass)
	line("approval", x.ApprovalID)
	if len(x.Values) > 0 {
		b.WriteString("\nwhere the values came from\n")
	}
	for _, value := range x.Values {
		fmt.Fprintf(&b, "  %s: %s\n", query.Printable(value.Path), value.Provenance)
		for _, record := range value.Brought {
			fmt.Fprintf(&b, "    %s\n", record)
		}
	}
	if x.record != "" {
		fmt.Fprintf(&b, "\n%s", x.record)
	}
	if x.Bound != nil {
		fmt.Fprintf(&b, "\nledger    %s, record %d of epoch %d\n", query.Printable(x.Bound.Ledger), x.Bound.Index, x.Bound.Epoch)
		line("bundle", x.Bound.BundleDigest)
		line("schema", x.Bound.SchemaDigest)
		line("identity", x.Bound.Identity)
		line("request", x.Bound.Request)
		fmt.Fprintf(&b, "%-10s%s\n", "facts", query.PrintableJSON(x.Facts))
		line("replay", x.Replay)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
