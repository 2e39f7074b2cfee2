// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/tools"
)

// egressCheck is the name of the check on what leaves.
const egressCheck = "egress"

var nothingLeaves = passing("data", egressCheck)

// sink holds what the arguments of a sink carry against what may leave through it.
func (e *evaluation) sink() {
	policy := e.entry.tool.Options.GetSink()
	if policy == nil {
		return
	}
	before := len(e.checks)
	for i := range e.leaves {
		if leaf := &e.leaves[i]; !leaf.Bool {
			e.leaving(policy, leaf)
		}
	}
	if e.cut {
		e.stays(policy, writv1.Reason_REASON_DATA_UNREADABLE, "", "the arguments hold more values than are read")
	}
	if len(e.checks) == before {
		e.pass(nothingLeaves)
	}
}

// audience returns the fields of a sink's request that say to whom it goes, by their paths
// in canonical JSON.
func (b *builder) audience(i int, tool *tools.Tool) map[string]bool {
	found := make(map[string]bool)
	for _, name := range tool.Options.GetSink().GetTo() {
		known := false
		fieldsBelow(tool.Request.Descriptor(), func(path string, field protoreflect.FieldDescriptor, _ *writv1.FieldPolicy) {
			if path == name && field.Kind() == protoreflect.StringKind && !field.IsMap() {
				found[path], known = true, true
			}
		})
		if !known {
			b.issue(PartTool, i, "%s: its sink goes to %s, which is no text of its request; write the field's name in JSON", tool.Name, name)
		}
	}
	return found
}

// leaving judges one value.
func (e *evaluation) leaving(policy *writv1.SinkPolicy, leaf *atoms.Leaf) {
	carried := e.carried(leaf.Path)
	most := cmp.Or(policy.GetCarries(), writv1.Classification_CLASSIFICATION_PUBLIC)
	switch {
	case carried == nil, carried.GetTruncated():
		e.stays(policy, writv1.Reason_REASON_DATA_UNREADABLE, leaf.Path, "the value is too large or too deeply encoded to be read")
	case carried.GetForeignTenant():
		e.stays(policy, writv1.Reason_REASON_DATA_FOREIGN_TENANT, leaf.Path, "the value carries something of another tenant")
	case carried.GetBeyondReaders():
		e.stays(policy, writv1.Reason_REASON_DATA_READERS, leaf.Path, "the value carries something that not all of those to whom it goes may read")
	case carried.GetClassification() > most:
		e.stays(policy, writv1.Reason_REASON_DATA_CLASSIFIED, leaf.Path, "the value carries something that is classified above what the tool may carry out")
	}
	if policy.GetSecrets() == writv1.SecretHandling_SECRET_HANDLING_LET_OUT || leaf.Number || carried.GetSecretsOfUser() {
		return
	}
	if kind, ok := secretIn(leaf.Text); ok {
		e.stays(policy, writv1.Reason_REASON_DATA_SECRET, leaf.Path, fmt.Sprintf("the value carries what looks like a secret (%s)", kind))
	}
}

// carried returns what the facts say of a value.
func (e *evaluation) carried(path string) *writv1.ValueProvenance {
	at := slices.IndexFunc(e.facts.GetValues(), func(l *writv1.ValueProvenance) bool { return l.GetPath() == path })
	if at < 0 {
		return nil
	}
	return e.facts.GetValues()[at]
}

// stays leaves the check of something that must not leave.
func (e *evaluation) stays(policy *writv1.SinkPolicy, reason writv1.Reason, path, message string) {
	check := failing("data", egressCheck, reason, path, message)
	switch policy.GetOtherwise() {
	case writv1.Disposition_DISPOSITION_ALLOW:
		e.pass(check)
	case writv1.Disposition_DISPOSITION_NEEDS_APPROVAL:
		e.ask(check)
	default:
		e.deny(check)
	}
}

// secretIn returns what a text looks like, in any encoding that is read.
func secretIn(text string) (string, bool) {
	readings, _ := atoms.Egress(text)
	for _, reading := range readings {
		if found := atoms.Secrets(reading); len(found) > 0 {
			return found[0].Kind, true
		}
	}
	return "", false
}
