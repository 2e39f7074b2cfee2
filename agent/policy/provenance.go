// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/sessions"
	"github.com/writ-dev/writ/tools/schemas"
)

// provenanceCheck is the name of the check on what fields demand.
const provenanceCheck = "provenance"

var demandsMet = passing("condition", provenanceCheck)

// demand is what a field of a request demands of its values' provenance.
type demand struct {
	// field is the path of the field in canonical JSON, without indices.
	field     string
	least     writv1.Origin
	otherwise writv1.Disposition
	untrusted writv1.Disposition
	named     writv1.Disposition
	object    string
	fresh     time.Duration
	perUnit   uint32
}

func newDemand(field string, p *writv1.ProvenanceDemand) demand {
	d := demand{
		field: field, least: p.GetLeast(), object: p.GetObject(), fresh: p.GetFresh().AsDuration(),
		perUnit:   p.GetPerUnit(),
		otherwise: cmp.Or(p.GetOtherwise(), writv1.Disposition_DISPOSITION_NEEDS_APPROVAL),
	}
	d.untrusted = cmp.Or(p.GetUntrusted(), d.otherwise)
	d.named = cmp.Or(p.GetNamed(), d.otherwise)
	return d
}

// speaksOf says whether a leaf stands in the field or below it.
func (d *demand) speaksOf(leaf *atoms.Leaf) bool {
	rest, ok := strings.CutPrefix(leaf.Field, d.field)
	return ok && (rest == "" || rest[0] == '.')
}

// demands holds the values of the fields that demand a provenance against what is
// known of them. Unknown is not trusted.
func (e *evaluation) demands() {
	if len(e.entry.demands) == 0 {
		return
	}
	before := len(e.checks)
	groups := make(map[group][]member)
	for i := range e.leaves {
		for d := range e.entry.demands {
			e.demand(&e.entry.demands[d], &e.leaves[i], groups)
		}
	}
	e.together(groups)
	if e.cut {
		e.deny(failing("condition", provenanceCheck, writv1.Reason_REASON_CONDITION_PROVENANCE, "",
			"the arguments hold more values than can be weighed; send fewer"))
	}
	if len(e.checks) == before {
		e.pass(demandsMet)
	}
}

// group is the fields that must come from one object, in one object of the
// arguments.
type group struct {
	object string
	within int
}

// member is a value of a group.
type member struct {
	demand *demand
	path   string
	label  *writv1.ValueProvenance
}

func (e *evaluation) demand(d *demand, leaf *atoms.Leaf, groups map[group][]member) {
	if !d.speaksOf(leaf) {
		return
	}
	label := e.labels[leaf.Path]
	if d.object != "" && !saidByUser(label) {
		key := group{d.object, leaf.Object}
		groups[key] = append(groups[key], member{d, leaf.Path, label})
	}
	fault := d.fault(label, e.now)
	if fault == "" {
		return
	}
	e.dispose(d.disposition(label), leaf.Path, fault)
}

// disposition is what happens with a value that does not meet the demand.
func (d *demand) disposition(label *writv1.ValueProvenance) writv1.Disposition {
	switch {
	case label.GetTrust() != writv1.Trust_TRUST_UNTRUSTED:
		return d.otherwise
	case label.GetOfRequest():
		return d.named
	default:
		return d.untrusted
	}
}

// dispose leaves the check of a demand that is not met.
func (e *evaluation) dispose(disposition writv1.Disposition, path, message string) {
	reason := writv1.Reason_REASON_CONDITION_PROVENANCE
	switch disposition {
	case writv1.Disposition_DISPOSITION_ALLOW:
		check := failing("condition", provenanceCheck, reason, path, message)
		e.pass(check)
	case writv1.Disposition_DISPOSITION_DENY:
		e.deny(failing("condition", provenanceCheck, reason, path, message))
	default:
		e.ask(failing("condition", provenanceCheck, writv1.Reason_REASON_APPROVAL_REQUIRED, path, message))
	}
}

// fault says what a value lacks; nothing where the demand is met.
func (d *demand) fault(label *writv1.ValueProvenance, now time.Time) string {
	trusted := label.GetTrust() == writv1.Trust_TRUST_TRUSTED
	switch {
	case label == nil:
		return "nothing in this session says where the value comes from; look it up or ask the user for it"
	case d.least >= writv1.Origin_ORIGIN_TRUSTED && !trusted:
		return "only untrusted sources say the value; look it up with a trusted tool or ask the user for it"
	case d.least == writv1.Origin_ORIGIN_REQUEST && !label.GetOfRequest() && !saidByUser(label):
		return "the value is of another object than the one the request is about"
	case d.least == writv1.Origin_ORIGIN_USER && !saidByUser(label):
		return "the user has not said the value"
	case d.fresh > 0 && now.Sub(label.GetTrustedTime().AsTime()) > d.fresh:
		return fmt.Sprintf("the value was last looked up more than %s ago; look it up again", d.fresh)
	}
	return ""
}

func saidByUser(label *writv1.ValueProvenance) bool {
	return label.GetTrust() == writv1.Trust_TRUST_TRUSTED && slices.Contains(label.GetSources(), sessions.User)
}

// together holds the values of each group against each other: some object of a
// trusted lookup must hold all of them.
func (e *evaluation) together(groups map[group][]member) {
	keys := make([]group, 0, len(groups))
	for key := range groups {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.object, b.object), cmp.Compare(a.within, b.within))
	})
	for _, key := range keys {
		members := groups[key]
		common := slices.Clone(members[0].label.GetObjects())
		for _, m := range members[1:] {
			common = slices.DeleteFunc(common, func(o uint32) bool { return !slices.Contains(m.label.GetObjects(), o) })
		}
		if len(members) > 1 && len(common) == 0 {
			last := members[len(members)-1]
			e.dispose(last.demand.otherwise, last.path, fmt.Sprintf("the values of the %s do not belong together: no lookup returned them in one object", key.object))
		}
	}
}

// index puts the labels of the facts beside the paths they speak of.
func (e *evaluation) index() {
	if len(e.leaves) == 0 {
		return
	}
	e.labels = make(map[string]*writv1.ValueProvenance, len(e.facts.GetValues()))
	for _, label := range e.facts.GetValues() {
		if label.GetTrust() != writv1.Trust_TRUST_UNSPECIFIED {
			e.labels[label.GetPath()] = label
		}
	}
}

// anyKey stands for the keys of a map in the path of a field.
const anyKey = "*"

// demandsOf returns what the fields below a request demand, and the paths of
// fields that cannot demand anything.
func demandsOf(message protoreflect.MessageDescriptor) (found []demand, faults []string) {
	fieldsBelow(message, func(path string, field protoreflect.FieldDescriptor, options *writv1.FieldPolicy) {
		asked := options.GetProvenance()
		switch kind := field.Kind(); {
		case asked == nil:
		case kind == protoreflect.BoolKind || kind == protoreflect.EnumKind || field.IsMap() || strings.Contains(path, "."+anyKey+"."):
			faults = append(faults, path+" cannot demand a provenance: it is a bool, an enum or in a map")
		case asked.GetPerUnit() > 0 && !numeric(kind):
			faults = append(faults, path+" has a per_unit: it is no number")
		default:
			found = append(found, newDemand(path, asked))
		}
	})
	return found, faults
}

func numeric(kind protoreflect.Kind) bool {
	switch kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind, protoreflect.GroupKind, protoreflect.BoolKind, protoreflect.EnumKind:
		return false
	default:
		return true
	}
}

// fieldsBelow visits the fields below a message by their paths in canonical JSON,
// without indices; a message that holds itself is entered once.
func fieldsBelow(message protoreflect.MessageDescriptor, visit func(string, protoreflect.FieldDescriptor, *writv1.FieldPolicy)) {
	entered := make(map[protoreflect.FullName]bool)
	steps := 0
	var walk func(protoreflect.MessageDescriptor, string)
	walk = func(message protoreflect.MessageDescriptor, prefix string) {
		if entered[message.FullName()] || steps > mostSteps {
			return
		}
		entered[message.FullName()] = true
		defer delete(entered, message.FullName())
		for i := range message.Fields().Len() {
			steps++
			field := message.Fields().Get(i)
			path := prefix + schemas.JSONName(field)
			visit(path, field, fieldPolicy(field))
			inner := field
			if field.IsMap() {
				inner = field.MapValue()
			}
			if field.IsMap() {
				path += "." + anyKey
			}
			if inner.Message() != nil {
				walk(inner.Message(), path+".")
			}
		}
	}
	walk(message, "")
}

// enumsOf returns the fields below a message whose values are fixed names.
func enumsOf(message protoreflect.MessageDescriptor) map[string]bool {
	found := make(map[string]bool)
	fieldsBelow(message, func(path string, field protoreflect.FieldDescriptor, _ *writv1.FieldPolicy) {
		if field.Kind() == protoreflect.EnumKind {
			found[path] = true
		}
	})
	return found
}
