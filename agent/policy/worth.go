// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools"
)

// worthOf returns what the fields of a tool's result are worth, by their paths in
// canonical JSON without indices; "" is what the tool's options say of all.
func worthOf(tool *tools.Tool) map[string]sessions.Worth {
	base := sessions.Worth{
		Trust:          cmp.Or(tool.Options.GetResult().GetTrust(), writv1.Trust_TRUST_UNTRUSTED),
		Classification: cmp.Or(tool.Options.GetResult().GetClassification(), writv1.Classification_CLASSIFICATION_PUBLIC),
	}
	naming := make(map[string]bool)
	fieldsBelow(tool.Response.Descriptor(), func(path string, _ protoreflect.FieldDescriptor, options *writv1.FieldPolicy) {
		if options.GetReaders() {
			naming[parent(path)] = true
		}
	})
	of := map[string]sessions.Worth{"": base}
	fieldsBelow(tool.Response.Descriptor(), func(path string, _ protoreflect.FieldDescriptor, options *writv1.FieldPolicy) {
		above := of[parent(path)]
		of[path] = sessions.Worth{
			Trust:          cmp.Or(options.GetTrust(), above.Trust),
			Classification: cmp.Or(options.GetClassification(), above.Classification),
			Tenant:         options.GetBinding() == writv1.Binding_BINDING_TENANT,
			Readers:        options.GetReaders(),
			Restricted:     above.Restricted || naming[parent(path)],
		}
	})
	return of
}

// parent returns the path of the field above; that of a map's values is the map's.
func parent(path string) string {
	cut := strings.LastIndexByte(path, '.')
	return strings.TrimSuffix(path[:max(0, cut)], "."+anyKey)
}

// Worth returns what a value of a tool's result is worth, by the path of its field
// in canonical JSON without indices.
func (b *Bundle) Worth(tool *tools.Tool, field string) sessions.Worth {
	entry := b.entries[tool.Name]
	if entry == nil {
		return sessions.Worth{Trust: writv1.Trust_TRUST_UNTRUSTED}
	}
	for {
		if worth, ok := entry.worth[field]; ok {
			return worth
		}
		field = field[:max(0, strings.LastIndexByte(field, '.'))]
	}
}

// Observed completes what is observed of a tool's result: who says it, what its
// values are worth, and what the call carried, if the tool writes.
func (b *Bundle) Observed(tool *tools.Tool, in sessions.Observed) sessions.Observed {
	in.Source = sessions.ToolSource(tool.Name)
	in.Worth = func(field string) sessions.Worth { return b.Worth(tool, field) }
	if tool.Options.GetEffect() != writv1.ToolEffect_TOOL_EFFECT_WRITE {
		in.Carried, in.Labels = nil, nil
	}
	return in
}

// Unseen returns the most that a tool's result may have been, where nobody saw it:
// whether anything in it is untrusted, and its highest classification.
func (b *Bundle) Unseen(tool *tools.Tool) (untrusted bool, class writv1.Classification) {
	entry := b.entries[tool.Name]
	return entry.unseen.untrusted, entry.unseen.class
}

// unseen is the most that a result may have been.
type unseen struct {
	untrusted bool
	class     writv1.Classification
}

func unseenOf(worths map[string]sessions.Worth) (most unseen) {
	for _, worth := range worths {
		most.untrusted = most.untrusted || worth.Trust != writv1.Trust_TRUST_TRUSTED
		most.class = max(most.class, worth.Classification)
	}
	return most
}

// Provenance says whether anything in the bundle asks where values came from: if
// not, nobody has to observe them.
func (b *Bundle) Provenance() bool { return b.provenance }

// provenance notes what the tools' options ask of facts.
func (b *builder) provenance() {
	for _, entry := range b.bundle.entries {
		if len(entry.demands) > 0 || entry.tool.Options.GetSink() != nil {
			entry.uses.values = true
		}
		b.bundle.provenance = b.bundle.provenance || entry.uses.values || entry.uses.session
	}
	// What a lookup was asked by decides whether what it finds is of the request.
	for _, entry := range b.bundle.entries {
		entry.uses.values = b.bundle.provenance
	}
}

// limits takes the session limits, in the order of their names.
func (b *builder) limits() {
	for _, i := range inOrder(b.source.Limits) {
		b.bundle.limits = append(b.bundle.limits, newLimit(b.source.Limits[i]))
	}
}
