// SPDX-License-Identifier: Apache-2.0

// Package approvals keeps which calls wait for a human, who has said what, and
// which approvals were used (SEMANTICS 13). It is a pure machine: decisions and
// votes go in as events, the clock is a parameter, and nothing is written, so that
// a [Machine] can be folded from a ledger.
//
// It promises that an approval is used at most once, never by another call than
// the one it was asked for, never after it expired or was denied, and that the
// requester's own vote and a second vote of the same user do not count.
//
// It does not verify signatures or roles: agent does, before a vote is recorded.
// It does not lock: its owner does.
package approvals

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ID is the id of an approval.
type ID [16]byte

// String returns the id as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads the form that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("an approval's id has %d hexadecimal digits, not %d", 2*len(id), len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("read an approval's id: %w", err)
	}
	return id, nil
}

// Bound is the keyed digest of what an approval is bound to: the call's identity,
// without the fields that may be lower, its session, and what the verdict rested on.
type Bound [32]byte

// MaxHeld bounds the approvals that are held, of at most 64 KiB each, MaxOfOwner
// those of one tenant, user and workload that can still be used, so that one planner
// cannot fill the room of all.
const (
	MaxHeld    = 2048
	MaxOfOwner = 128
)

// Reasons why a vote or a use is not taken.
var (
	// ErrFull says that there is no room for another approval.
	ErrFull = errors.New("too many approvals are held")
	// ErrUnknown says that no such approval is held.
	ErrUnknown = errors.New("no such approval")
	// ErrExpired says that the approval has ended.
	ErrExpired = errors.New("the approval has expired")
	// ErrDecided says that the approval was denied, used or has its quorum.
	ErrDecided = errors.New("the approval is decided")
	// ErrSelf says that who asks cannot approve.
	ErrSelf = errors.New("the requester cannot approve the call")
	// ErrRepeated says that the user has voted.
	ErrRepeated = errors.New("the approver has voted before")
)

// State is what has become of an approval.
type State int32

// The states of an approval.
const (
	// Pending waits for votes.
	Pending State = iota + 1
	// Approved has its quorum and was not used.
	Approved
	// Denied was denied by an approver.
	Denied
	// Expired has ended without being used.
	Expired
	// Consumed has let its call through.
	Consumed
)

// String returns the state's name in capitals.
func (s State) String() string {
	names := [...]string{"UNSPECIFIED", "PENDING", "APPROVED", "DENIED", "EXPIRED", "CONSUMED"}
	if s < 0 || int(s) >= len(names) {
		return names[0]
	}
	return names[s]
}

// Held is one approval.
type Held struct {
	// ID is its id, Key what it is bound to.
	ID  ID
	Key Bound
	// Subject is what is approved.
	Subject *writv1.ApprovalSubject
	// Votes are the votes that were taken, in their order.
	Votes []*writv1.ApprovalVote
	// Used is whether it has let its call through.
	Used bool
}

// State returns what has become of the approval by now.
func (h *Held) State(now time.Time) State {
	switch {
	case h.Used:
		return Consumed
	case h.DeniedBy() != "":
		return Denied
	case !now.Before(h.Subject.GetRequest().GetExpireTime().AsTime()):
		return Expired
	case len(h.ApprovedBy()) >= int(h.Subject.GetRequest().GetQuorum()):
		return Approved
	}
	return Pending
}

// ApprovedBy returns the users who approved.
func (h *Held) ApprovedBy() []string {
	var users []string
	for _, v := range h.Votes {
		if v.GetChoice() == writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE {
			users = append(users, v.GetApprover())
		}
	}
	return users
}

// DeniedBy returns the user who denied, or "".
func (h *Held) DeniedBy() string {
	for _, v := range h.Votes {
		if v.GetChoice() == writv1.ApprovalChoice_APPROVAL_CHOICE_DENY {
			return v.GetApprover()
		}
	}
	return ""
}

// Fact returns the approval as a decision reads it.
func (h *Held) Fact() *writv1.ApprovalFact {
	return &writv1.ApprovalFact{
		Id: h.ID.String(), Basis: h.Subject.GetRequest().GetBasis(),
		ApprovedBy: h.ApprovedBy(), DeniedBy: h.DeniedBy(), ExpireTime: h.Subject.GetRequest().GetExpireTime(),
		AtMost: h.Subject.GetRequest().GetAtMost(),
	}
}

// Machine holds approvals. The zero value is not ready: use [New].
type Machine struct {
	held map[ID]*Held
	// current has the newest approval of each key.
	current map[Bound]ID
}

// owner is who asks, as far as room is counted.
type owner struct{ tenant, user, workload string }

func ownerOf(p *writv1.Principal) owner {
	return owner{p.GetTenant(), p.GetUser(), p.GetWorkload()}
}

// New returns a machine that holds nothing.
func New() *Machine {
	return &Machine{held: make(map[ID]*Held), current: make(map[Bound]ID)}
}

// Current returns the approval that a call may wait for or use now: the newest of
// its key, unless that has expired or was used. The caller MUST NOT change it.
func (m *Machine) Current(key Bound, now time.Time) (*Held, bool) {
	h, ok := m.held[m.current[key]]
	if !ok || h.Used || !now.Before(h.Subject.GetRequest().GetExpireTime().AsTime()) {
		return nil, false
	}
	return h, true
}

// Get returns an approval. The caller MUST NOT change it.
func (m *Machine) Get(id ID) (*Held, bool) {
	h, ok := m.held[id]
	return h, ok
}

// Room says whether another approval of who asks may be held at the time.
func (m *Machine) Room(who *writv1.Principal, now time.Time) error {
	open, own := 0, 0
	for _, h := range m.held {
		if state := h.State(now); state != Pending && state != Approved {
			continue
		}
		open++
		if ownerOf(h.Subject.GetPrincipal()) == ownerOf(who) {
			own++
		}
	}
	if open >= MaxHeld || own >= MaxOfOwner {
		return ErrFull
	}
	return nil
}

// Last returns the id of the newest approval of a key, whatever became of it; zero
// when there is none.
func (m *Machine) Last(key Bound) ID { return m.current[key] }

// Ask takes a request that was recorded. One that is held already and has not
// expired stays as it is: a repeat is not a second request, and Ask returns false.
func (m *Machine) Ask(h Held) bool {
	if earlier, ok := m.held[h.ID]; ok {
		if h.Subject.GetTime().AsTime().Before(earlier.Subject.GetRequest().GetExpireTime().AsTime()) {
			return false
		}
		m.forget(earlier)
	}
	if len(m.held) >= MaxHeld {
		m.makeRoom(h.Subject.GetTime().AsTime())
	}
	h.Votes = slices.Clone(h.Votes)
	m.held[h.ID] = &h
	m.current[h.Key] = h.ID
	return true
}

// makeRoom drops the oldest approval that has ended by the time, and else the oldest.
func (m *Machine) makeRoom(now time.Time) {
	held := m.Held()
	ended := slices.IndexFunc(held, func(h *Held) bool { return h.State(now) != Pending && h.State(now) != Approved })
	m.forget(held[max(0, ended)])
}

// Restore takes an approval of a snapshot.
func (m *Machine) Restore(kept *writv1.HeldApproval) error {
	id, err := ParseID(kept.GetSubject().GetApprovalId())
	if err != nil {
		return err
	}
	h := Held{ID: id, Subject: kept.GetSubject(), Votes: kept.GetVotes(), Used: kept.GetUsed()}
	copy(h.Key[:], kept.GetSubject().GetRequest().GetKey())
	if _, ok := m.held[id]; ok {
		return fmt.Errorf("the approval %s is there twice", id)
	}
	m.Ask(h)
	return nil
}

// Snapshot returns the approval as a snapshot keeps it.
func (h *Held) Snapshot() *writv1.HeldApproval {
	return &writv1.HeldApproval{Subject: h.Subject, Votes: h.Votes, Used: h.Used}
}

// Votable says why a vote cannot be taken now; nil when it can.
func (m *Machine) Votable(v *writv1.ApprovalVote, now time.Time) error {
	id, err := ParseID(v.GetApprovalId())
	if err != nil {
		return ErrUnknown
	}
	h, ok := m.held[id]
	if !ok {
		return ErrUnknown
	}
	switch {
	case self(h, v):
		return ErrSelf
	case repeated(h, v):
		return ErrRepeated
	}
	switch h.State(now) {
	case Pending:
		return nil
	case Approved:
		// Until it is used, an approval can still be denied.
		if v.GetChoice() == writv1.ApprovalChoice_APPROVAL_CHOICE_DENY {
			return nil
		}
		return ErrDecided
	case Expired:
		return ErrExpired
	}
	return ErrDecided
}

// Vote takes a vote that was recorded. One of the requester, a repeated one, and one
// that came too late change nothing. What became of the approval meanwhile does not
// matter here: a use is applied before its record is written, a vote after.
func (m *Machine) Vote(v *writv1.ApprovalVote) {
	id, err := ParseID(v.GetApprovalId())
	h, ok := m.held[id]
	if err != nil || !ok || self(h, v) || repeated(h, v) || len(h.Votes) == MaxVotes {
		return
	}
	if v.GetTime().AsTime().Before(h.Subject.GetRequest().GetExpireTime().AsTime()) {
		h.Votes = append(h.Votes, v)
	}
}

// MaxVotes bounds the votes on one approval: twice the largest quorum.
const MaxVotes = 16

func self(h *Held, v *writv1.ApprovalVote) bool {
	who := v.GetApprover()
	return who == "" || who == h.Subject.GetPrincipal().GetUser() || who == h.Subject.GetPrincipal().GetWorkload()
}

func repeated(h *Held, v *writv1.ApprovalVote) bool {
	return slices.ContainsFunc(h.Votes, func(earlier *writv1.ApprovalVote) bool {
		return earlier.GetApprover() == v.GetApprover() && earlier.GetChoice() == v.GetChoice()
	})
}

// Usable says whether the approval would let its call through now.
func (m *Machine) Usable(id ID, now time.Time) bool {
	h, ok := m.held[id]
	return ok && h.State(now) == Approved
}

// Consume uses the approval up.
func (m *Machine) Consume(id ID) {
	if h, ok := m.held[id]; ok {
		h.Used = true
	}
}

// Unconsume undoes Consume: the record of the use was not written.
func (m *Machine) Unconsume(id ID) {
	if h, ok := m.held[id]; ok {
		h.Used = false
	}
}

// Held returns all approvals, in the order of their time and id.
func (m *Machine) Held() []*Held {
	out := make([]*Held, 0, len(m.held))
	for _, h := range m.held {
		out = append(out, h)
	}
	sort.Slice(out, func(i, j int) bool {
		if !out[i].Subject.GetTime().AsTime().Equal(out[j].Subject.GetTime().AsTime()) {
			return out[i].Subject.GetTime().AsTime().Before(out[j].Subject.GetTime().AsTime())
		}
		return out[i].ID.String() < out[j].ID.String()
	})
	return out
}

// Forget drops approvals that ended before the given time.
func (m *Machine) Forget(before time.Time) {
	for _, h := range m.held {
		if h.Subject.GetRequest().GetExpireTime().AsTime().Before(before) {
			m.forget(h)
		}
	}
}

func (m *Machine) forget(h *Held) {
	delete(m.held, h.ID)
	if m.current[h.Key] == h.ID {
		delete(m.current, h.Key)
	}
}

// Dump writes the approvals as text, equal for equal machines.
func (m *Machine) Dump() string {
	var out strings.Builder
	for _, h := range m.Held() {
		fmt.Fprintf(&out, "approval %s key %x rule %q quorum %d until %s approved %q denied %q used %t\n",
			h.ID, h.Key[:4], h.Subject.GetRequest().GetRule(), h.Subject.GetRequest().GetQuorum(),
			h.Subject.GetRequest().GetExpireTime().AsTime().Format(time.RFC3339Nano), h.ApprovedBy(), h.DeniedBy(), h.Used)
	}
	return out.String()
}
