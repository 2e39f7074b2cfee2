// SPDX-License-Identifier: Apache-2.0

// Package sessions keeps what is known of each session: whose it is, how many
// calls it made, what it read, and where the values it knows came from
// (SEMANTICS 8 to 11). It is a pure machine: records go in as events, the clock is
// a parameter, and nothing is written, so that a [Machine] can be folded from a
// ledger.
//
// It decides nothing: policy does, over the [Machine.Summary] and the labels
// that [Machine.Label] gives. It never holds a value: values are known by keyed
// digests alone. It does not lock: its owner does.
//
// Everything is bounded. A session that is full learns nothing more: what it is
// told after that is unknown, which no rule takes for trusted.
package sessions

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ID names a session.
type ID [16]byte

// String returns the id as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Token is the keyed digest of a session's token.
type Token [32]byte

const (
	// AmbientWindow is how long after its last call an ambient session ends.
	AmbientWindow = time.Hour
	// DefaultLifetime and MostLifetime are how long a session that is minted lasts.
	DefaultLifetime = time.Hour
	MostLifetime    = 24 * time.Hour

	// Most bounds the sessions that are kept.
	Most = 1 << 16
	// MostValues bounds the atoms that one session knows: some 1.5 MiB at most.
	MostValues = 1 << 14
	// MostValuesInAll bounds the atoms that all sessions know: some 500 MiB. A session
	// that would know more is full, as one is that has too many of its own.
	MostValuesInAll = 1 << 22
	// MostValuesOfTenant bounds those of one tenant's sessions: nobody's sessions are
	// filled by another tenant alone.
	MostValuesOfTenant = MostValuesInAll / 2
	// MostTools bounds the tools of which a session keeps steps.
	MostTools = 256
	// MostSteps bounds the steps that are kept of one tool, the newest.
	MostSteps = 64
	// mostSources bounds the sources that a session tells apart.
	mostSources = 64
	// mostObjects bounds the objects that are kept with a value, the newest.
	mostObjects = 16
)

var (
	// ErrFull is returned when as many sessions are kept as may be.
	ErrFull = errors.New("too many sessions are open")
	// ErrUnknown is returned when there is no such session.
	ErrUnknown = errors.New("no such session")
)

// Owner is whose a session is: the principal without its roles, which may change.
type Owner struct {
	Workload, User, Tenant string
}

// OwnerOf returns the owner of a principal's sessions.
func OwnerOf(p *writv1.Principal) Owner {
	return Owner{Workload: p.GetWorkload(), User: p.GetUser(), Tenant: p.GetTenant()}
}

// counts are what was counted in a session, or of an owner.
type counts struct{ calls, writes, denials uint64 }

func (c *counts) add(verdict writv1.Verdict, effect writv1.ToolEffect) {
	switch verdict {
	case writv1.Verdict_VERDICT_ALLOW:
		c.calls++
		if effect == writv1.ToolEffect_TOOL_EFFECT_WRITE {
			c.writes++
		}
	case writv1.Verdict_VERDICT_DENY:
		c.denials++
	}
}

func (c counts) message() *writv1.SessionCounts {
	return &writv1.SessionCounts{Calls: c.calls, Writes: c.writes, Denials: c.denials}
}

// session is what is known of one session.
type session struct {
	id      ID
	owner   Owner
	token   Token
	ambient bool
	begin   time.Time
	expire  time.Time

	attested  bool
	untrusted bool
	class     writv1.Classification
	full      bool
	counts    counts

	steps  map[string]*steps
	values map[uint64]*value
	// sources are the sources that values name by their place in it.
	sources []string
	// readers are the sets of readers that values name by their place in it.
	readers [][]uint64
	// objects is how many objects were observed.
	objects uint32
	// version counts changes, so that a reader can tell whether what it read still
	// stands. It is not part of the folded state.
	version uint64
}

// owned is what is kept of an owner across its sessions, until the last of them
// has expired.
type owned struct {
	counts  counts
	expire  time.Time
	version uint64
}

// Machine holds the sessions of an agent.
type Machine struct {
	sessions map[ID]*session
	tokens   map[Token]ID
	owners   map[Owner]*owned
	// open has the session of each step that has not ended.
	open map[[16]byte]*step
	next uint64
	// values is how many values all sessions know, ofTenant how many those of a tenant.
	values   int
	ofTenant map[string]int
	// mostOfTenant is MostValuesOfTenant.
	mostOfTenant int
}

// New returns a machine without sessions.
func New() *Machine {
	return &Machine{
		sessions: make(map[ID]*session),
		tokens:   make(map[Token]ID),
		owners:   make(map[Owner]*owned),
		open:     make(map[[16]byte]*step),
		ofTenant: make(map[string]int), mostOfTenant: MostValuesOfTenant,
	}
}

// Room returns ErrFull when no further session may begin at the time.
func (m *Machine) Room(id ID, now time.Time) error {
	if _, ok := m.sessions[id]; ok || len(m.sessions) < Most {
		return nil
	}
	m.Forget(now)
	if len(m.sessions) < Most {
		return nil
	}
	return ErrFull
}

// Begin takes the record of a session that was minted. It begins with what its
// owner's other sessions have read: a new session gains nothing (SEMANTICS 8).
func (m *Machine) Begin(r *writv1.SessionRecord) {
	owner := OwnerOf(r.GetPrincipal())
	s := m.add(ID(r.GetSession()), owner, r.GetTime().AsTime())
	s.expire = r.GetExpireTime().AsTime()
	copy(s.token[:], r.GetTokenDigest())
	m.tokens[s.token] = s.id
	for _, other := range m.sessions {
		if other.owner == owner && other != s && !other.expired(s.begin) {
			s.untrusted = s.untrusted || other.untrusted
			s.class = max(s.class, other.class)
		}
	}
	m.extend(s)
}

func (m *Machine) add(id ID, owner Owner, now time.Time) *session {
	s := &session{
		id: id, owner: owner, begin: now, expire: now.Add(AmbientWindow),
		steps: make(map[string]*steps), values: make(map[uint64]*value),
	}
	m.sessions[id] = s
	return s
}

// extend keeps what is known of the owner as long as the session lasts.
func (m *Machine) extend(s *session) {
	of, ok := m.owners[s.owner]
	if !ok || !of.expire.After(s.begin) {
		of = &owned{}
		m.owners[s.owner] = of
	}
	if s.expire.After(of.expire) {
		of.expire = s.expire
	}
}

// End takes the record of a session that was ended.
func (m *Machine) End(r *writv1.SessionRecord) {
	if s, ok := m.sessions[ID(r.GetSession())]; ok {
		m.drop(s)
	}
}

// Find returns the session that a token names, if it is the owner's and has not
// expired.
func (m *Machine) Find(token Token, owner Owner, now time.Time) (ID, error) {
	id, ok := m.tokens[token]
	if !ok {
		return ID{}, ErrUnknown
	}
	s := m.sessions[id]
	if s.owner != owner || s.expired(now) {
		return ID{}, ErrUnknown
	}
	return id, nil
}

func (s *session) expired(now time.Time) bool { return !s.expire.After(now) }

// Decided takes a decision on a call of the session. A session that is not there,
// or has expired, is the owner's ambient session beginning anew.
func (m *Machine) Decided(d Decided) {
	s := m.at(d.Session, d.Owner, d.Time)
	if s.ambient && d.Time.Add(AmbientWindow).After(s.expire) {
		s.expire = d.Time.Add(AmbientWindow)
		m.extend(s)
	}
	if s.ambient && d.Time.Before(s.begin) {
		s.begin = d.Time
	}
	s.counts.add(d.Verdict, d.Effect)
	of := m.owners[s.owner]
	of.counts.add(d.Verdict, d.Effect)
	m.changed(s)
	of.version = m.next
	if d.Verdict == writv1.Verdict_VERDICT_ALLOW {
		m.step(s, d)
	}
}

// Decided is a decision as a session takes it.
type Decided struct {
	Session  ID
	Owner    Owner
	Time     time.Time
	Decision [16]byte
	Tool     string
	Effect   writv1.ToolEffect
	Verdict  writv1.Verdict
	// Kept are the fields of the arguments that are kept.
	Kept []*writv1.KeptField
}

// at returns the session, which is made when it is not there.
func (m *Machine) at(id ID, owner Owner, now time.Time) *session {
	s, ok := m.sessions[id]
	if ok && !s.expired(now) {
		return s
	}
	if ok && !s.ambient {
		return s
	}
	if ok {
		m.drop(s)
	}
	s = m.add(id, owner, now)
	s.ambient = true
	m.extend(s)
	return s
}

func (m *Machine) drop(s *session) {
	delete(m.sessions, s.id)
	m.values -= len(s.values)
	if m.ofTenant[s.owner.Tenant] -= len(s.values); m.ofTenant[s.owner.Tenant] == 0 {
		delete(m.ofTenant, s.owner.Tenant)
	}
	if m.tokens[s.token] == s.id {
		delete(m.tokens, s.token)
	}
	for _, of := range s.steps {
		for _, step := range of.kept {
			delete(m.open, step.decision)
		}
	}
}

// Forget drops what has expired.
func (m *Machine) Forget(now time.Time) {
	for _, s := range m.sessions {
		if s.expired(now) {
			m.drop(s)
		}
	}
	for owner, of := range m.owners {
		if !of.expire.After(now) {
			delete(m.owners, owner)
		}
	}
}

func (m *Machine) changed(s *session) {
	m.next++
	s.version = m.next
}

// Version tells one reading of a session and its owner from a later one.
func (m *Machine) Version(id ID, owner Owner) uint64 {
	var newest uint64
	if s, ok := m.sessions[id]; ok {
		newest = s.version
	}
	if of, ok := m.owners[owner]; ok {
		newest = max(newest, of.version)
	}
	return newest
}

// Len returns how many sessions are kept.
func (m *Machine) Len() int { return len(m.sessions) }

// Summary returns what a decision reads of a session at the time: its counts and
// labels, and its steps of the tools that are named. A session that is not there
// is the owner's ambient one, which is empty but for what is known of the owner.
func (m *Machine) Summary(id ID, owner Owner, now time.Time, tools []string) *writv1.SessionSummary {
	out := &writv1.SessionSummary{Id: id[:], PrincipalCounts: &writv1.SessionCounts{}}
	if of, ok := m.owners[owner]; ok && of.expire.After(now) {
		out.PrincipalCounts = of.counts.message()
	}
	s, ok := m.sessions[id]
	if !ok || s.expired(now) {
		out.Ambient, out.Counts = true, &writv1.SessionCounts{}
		return out
	}
	out.Ambient, out.Attested = s.ambient, s.attested
	out.ReadUntrusted, out.Classification, out.Full = s.untrusted, s.class, s.full
	out.Counts = s.counts.message()
	out.Steps, out.StepCounts = s.summary(tools)
	return out
}

// HasRead says whether the session is known to have read something untrusted, if that
// is asked, and something of the classification. One that is not kept has read
// nothing that it could tell.
func (m *Machine) HasRead(id ID, untrusted bool, class writv1.Classification) bool {
	s, ok := m.sessions[id]
	return !ok || (s.untrusted || !untrusted) && s.class >= class
}

// Expire returns when a session expires; the zero time when it is not there.
func (m *Machine) Expire(id ID) time.Time {
	if s, ok := m.sessions[id]; ok {
		return s.expire
	}
	return time.Time{}
}

// Check returns ErrUnknown when the owner has no such session at the time, minted
// or ambient.
func (m *Machine) Check(id ID, owner Owner, now time.Time) error {
	s, ok := m.sessions[id]
	if !ok || s.owner != owner || s.expired(now) {
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	return nil
}
