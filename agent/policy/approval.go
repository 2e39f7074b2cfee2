// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"crypto/sha256"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// The rule that is built in: what a check asks for where no rule of the bundle
// speaks of the call.
const (
	defaultExpiry = 15 * time.Minute
	defaultQuorum = 1
	defaultRole   = "approver"
)

var (
	approved   = passing("approval", "approved")
	unapproved = failing("approval", "approved", writv1.Reason_REASON_APPROVAL_REQUIRED, "",
		"a human must approve the call first")
	refusedByHuman = failing("approval", "approved", writv1.Reason_REASON_APPROVAL_DENIED, "",
		"an approver has denied the call")
)

// approvalRule is a rule as it bears on one tool.
type approvalRule struct {
	name      string
	roles     []string
	quorum    uint32
	expiry    time.Duration
	digest    [32]byte
	condition *program
	// atMost are fields whose value may be lower than it was when it was approved.
	atMost []string

	passed, failed *writv1.Check
}

func newApprovalRule(r *writv1.ApprovalRule, condition *program) approvalRule {
	out := approvalRule{
		name: r.GetName(), roles: r.GetRoles(), quorum: max(r.GetQuorum(), defaultQuorum), expiry: defaultExpiry,
		digest: digestOf(r), condition: condition, atMost: r.GetAtMost(),
		passed: passing("approval", r.GetName()),
		failed: failing("approval", r.GetName(), writv1.Reason_REASON_APPROVAL_REQUIRED, "", "a rule asks for a human's approval"),
	}
	if r.GetExpiry() != nil {
		out.expiry = r.GetExpiry().AsDuration()
	}
	return out
}

var builtIn = newApprovalRule(&writv1.ApprovalRule{Roles: []string{defaultRole}}, nil)

// digestOf returns the digest of a part of the bundle.
func digestOf(part proto.Message) [32]byte {
	text, err := canonical.Marshal(part)
	if err != nil {
		// Only a message that canonical does not know, which no part of a bundle is.
		text = []byte(err.Error())
	}
	return sha256.Sum256(text)
}

// chain returns the digest of one digest after another.
func chain(before, next [32]byte) [32]byte {
	return sha256.Sum256(append(before[:], next[:]...))
}

// approval asks for a human where a rule or an earlier check does, and passes what
// enough of them have approved. Where nothing asks it leaves no check but those of
// the rules.
func (e *evaluation) approval() {
	e.weighApproval(e.approvalRule())
	switch {
	case !e.call.Envelope.GetToolCall().GetApproved():
	case e.consumed == nil:
		e.deny(claimedNod)
	default:
		e.pass(claimedTruly)
	}
}

func (e *evaluation) weighApproval(rule *approvalRule) {
	if e.pending == nil {
		return
	}
	e.request = e.requested(rule)
	given := e.facts.GetApproval()
	switch {
	case given == nil || !bytes.Equal(given.GetBasis(), e.request.GetBasis()) || !e.now.Before(given.GetExpireTime().AsTime()):
		e.checks = append(e.checks, unapproved)
	case given.GetDeniedBy() != "":
		e.deny(refusedByHuman)
	case !Within(e.request.GetAtMost(), given.GetAtMost()):
		e.checks = append(e.checks, unapproved)
	case e.approvers(given) < int(rule.quorum):
		e.checks = append(e.checks, unapproved)
	default:
		e.pass(approved)
		e.pending = nil
		e.consumed = &writv1.Effect{Effect: &writv1.Effect_Consume{Consume: &writv1.ConsumeApproval{Id: given.GetId()}}}
	}
}

// approvalRule evaluates the rules on the tool, and returns the one that counts: the
// first that asks by itself, else the first without a condition, else the built-in one.
func (e *evaluation) approvalRule() *approvalRule {
	var asks, speaks *approvalRule
	for i := range e.entry.approvals {
		rule := &e.entry.approvals[i]
		switch {
		case rule.condition == nil:
			speaks = firstRule(speaks, rule)
		case e.holds(rule.condition) == no:
			e.pass(rule.passed)
		default:
			e.ask(rule.failed)
			asks = firstRule(asks, rule)
		}
	}
	return firstRule(firstRule(asks, speaks), &builtIn)
}

func firstRule(a, b *approvalRule) *approvalRule {
	if a != nil {
		return a
	}
	return b
}

// approvers counts the people who approved, the requester apart (four eyes).
func (e *evaluation) approvers(given *writv1.ApprovalFact) int {
	var people []string
	for _, user := range given.GetApprovedBy() {
		own := user == e.call.Principal.GetUser() || user == e.call.Principal.GetWorkload()
		if user != "" && !own && !slices.Contains(people, user) {
			people = append(people, user)
		}
	}
	return len(people)
}

// requested returns what the call asks for under a rule.
func (e *evaluation) requested(rule *approvalRule) *writv1.ApprovalRequest {
	return &writv1.ApprovalRequest{
		Rule: rule.name, Basis: e.basisUnder(rule), Roles: rule.roles, Quorum: rule.quorum,
		ExpireTime: timestamppb.New(e.now.Add(rule.expiry)),
		AskedBy:    e.askedBy, Risk: e.declaredRisk(), AtMost: e.bounds(rule),
	}
}

// bounds returns the most that the fields of a rule may be: what they are in this call.
// Nothing is bounded where one of them is absent, zero or negative, for that may mean
// all there is: then the call itself is approved, and no other.
func (e *evaluation) bounds(rule *approvalRule) []*writv1.ApprovalBound {
	var bounds []*writv1.ApprovalBound
	for _, field := range rule.atMost {
		value := numberAt(e.typed, field)
		if value == 0 || value > math.MaxInt64 {
			return nil
		}
		bounds = append(bounds, &writv1.ApprovalBound{Field: field, Value: int64(value)})
	}
	return bounds
}

// Within says whether a call's values of bounded fields are no more than those that
// are approved, of the same fields in the same order.
func Within(asked, approved []*writv1.ApprovalBound) bool {
	return slices.EqualFunc(asked, approved, func(own, most *writv1.ApprovalBound) bool {
		return own.GetField() == most.GetField() && own.GetValue() >= 1 && own.GetValue() <= most.GetValue()
	})
}

// unbounded returns the call's arguments, in canonical JSON, without the fields that an
// approval bounds: what must be the same in the call that it lets through.
func (e *evaluation) unbounded() []byte {
	message := proto.Clone(e.typed.Interface()).ProtoReflect()
	for _, bound := range e.request.GetAtMost() {
		steps := strings.Split(bound.GetField(), ".")
		of := message
		for i, step := range steps {
			field := of.Descriptor().Fields().ByName(protoreflect.Name(step))
			if i == len(steps)-1 {
				of.Clear(field)
				continue
			}
			of = of.Mutable(field).Message()
		}
	}
	return e.entry.tool.Request.Append(nil, message)
}

// basisUnder returns the digest of what the verdict rests on: an approval given under
// another schema, grant, rule or check is an approval of something else.
func (e *evaluation) basisUnder(rule *approvalRule) []byte {
	sum := sha256.New()
	sum.Write([]byte("writ/approval-basis/v1\n"))
	sum.Write(e.entry.tool.SchemaDigest[:])
	sum.Write(rule.digest[:])
	for _, grant := range e.basis {
		sum.Write(grant[:])
	}
	if run := e.facts.GetSession().GetRun(); run != nil && e.bundle.contracts[run.GetContract()] != nil {
		sum.Write([]byte("contract\n"))
		sum.Write(e.bundle.contracts[run.GetContract()].digest[:])
	}
	sum.Write([]byte("asked\n"))
	for _, applied := range e.entry.rules {
		if slices.Contains(e.askedBy, applied.name) {
			sum.Write(applied.digest[:])
		}
	}
	for i := range e.entry.approvals {
		if slices.Contains(e.askedBy, e.entry.approvals[i].name) {
			sum.Write(e.entry.approvals[i].digest[:])
		}
	}
	for _, band := range e.entry.risk.bands {
		if slices.Contains(e.askedBy, band.GetName()) {
			sum.Write(band.digest[:])
			sum.Write(e.entry.risk.digest[:])
		}
	}
	return sum.Sum(nil)
}

// approvals binds the approval rules to their tools, in the order of their names.
func (b *builder) approvals() {
	for _, i := range inOrder(b.source.Approvals) {
		source := b.source.Approvals[i]
		for _, entry := range b.selected(source.GetTools()) {
			var condition *program
			if source.GetCondition() != "" {
				var ok bool
				if condition, ok = b.compile(PartApproval, i, source.GetCondition(), entry); !ok {
					break
				}
			}
			for _, field := range source.GetAtMost() {
				if !isNumber(entry.tool.Request.Descriptor(), field) {
					b.issue(PartApproval, i, "at_most: the request of %s has no whole number %s that may be told", entry.tool.Name, field)
				}
			}
			entry.approvals = append(entry.approvals, newApprovalRule(source, condition))
		}
	}
}
