// SPDX-License-Identifier: Apache-2.0

// Package admissions keeps which calls were admitted: which idempotency keys are
// taken, by which call, and how it ended (SEMANTICS 4), and which admissions have
// no outcome yet. It is a pure machine: decisions and outcomes go in as events,
// the clock is a parameter, and nothing is written, so that a [Machine] can be
// folded from a ledger.
//
// It does not decide what a repeat is answered: agent does. It does not lock:
// its owner does.
package admissions

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ID is the id of a decision, and so of the admission it makes.
type ID [16]byte

// String returns the id as 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads the form that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("a decision id has %d hexadecimal digits, not %d", 2*len(id), len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("read a decision id: %w", err)
	}
	return id, nil
}

// Digest is a keyed digest: of an idempotency key in its scope, or of a call.
type Digest [32]byte

// KeptFor is how long an idempotency key is remembered. A repeat after it is a
// new call, as with the Idempotency-Key header of the payment APIs that the IETF
// draft of that name describes.
const KeptFor = 24 * time.Hour

// MaxKeys bounds the idempotency keys that are remembered. Beyond it those of calls that
// have ended are forgotten sooner, the oldest first, but none before KeptAtLeast: a key
// is for retries, which come within minutes.
const (
	MaxKeys     = 1 << 20
	KeptAtLeast = 10 * time.Minute
)

// KeptBytes bounds the results that are kept for repeats, all of them together.
// Beyond it those of the oldest decisions are dropped: a repeat then learns that
// the call was carried out, and not with which result.
const KeptBytes = 64 << 20

// ErrFull is returned when more admissions would be open than allowed, or more keys be
// remembered.
var ErrFull = errors.New("too many admissions are kept")

// Claim is what an ALLOW takes: an admission and, when the caller gave one, an
// idempotency key.
type Claim struct {
	// ID is the decision.
	ID ID
	// Key is the digest of the idempotency key, zero when there is none.
	Key Digest
	// Identity is the identity of the call.
	Identity Digest
	// Tenant is the principal's.
	Tenant string
	// Time is when the decision was made.
	Time time.Time
	// Reserved is what the decision reserved.
	Reserved []*writv1.Reserve
}

// Held is an admission that holds an idempotency key or has no outcome yet.
type Held struct {
	Claim
	// Outcome is how it ended; nil while it has not. It holds no result when that
	// was not kept.
	Outcome *writv1.OutcomeRecord

	// place is where it stands among the results that are kept, from 1; 0 is nowhere.
	place int
}

// before says whether the decision was made before another. No two are alike.
func (h *Held) before(other *Held) bool {
	if !h.Time.Equal(other.Time) {
		return h.Time.Before(other.Time)
	}
	return bytes.Compare(h.ID[:], other.ID[:]) < 0
}

// Machine holds admissions. Make one with [New].
type Machine struct {
	limit, maxKeys int
	keys           map[Digest]*Held
	open           map[ID]*Held
	// order has who took keys by time of decision, oldest first, so that forgetting
	// costs what is forgotten. Who holds its key no longer may still stand in it.
	order   []*Held
	results results
	// newest is the time of the newest decision.
	newest time.Time
}

// New returns an empty machine that has room for limit open admissions.
func New(limit int) *Machine {
	return &Machine{limit: limit, maxKeys: MaxKeys, keys: make(map[Digest]*Held), open: make(map[ID]*Held)}
}

// Earlier returns the admission that holds the idempotency key at the time now.
func (m *Machine) Earlier(key Digest, now time.Time) (*Held, bool) {
	if key == (Digest{}) {
		return nil, false
	}
	held, ok := m.keys[key]
	if !ok || now.Sub(held.Time) >= KeptFor {
		return nil, false
	}
	return held, true
}

// Room says whether another call may be admitted: ErrFull if not. A fold does not ask,
// for what it takes was admitted.
func (m *Machine) Room(claim Claim) error {
	m.Advance(claim.Time)
	if len(m.open) >= m.limit {
		return ErrFull
	}
	if claim.Key != (Digest{}) && len(m.keys) >= m.maxKeys {
		if !m.spent(m.order[0], m.newest) {
			return ErrFull
		}
	}
	return nil
}

// Take records that a call is admitted. The caller MUST have seen, without
// giving up its lock since, that there is Room and that Earlier finds nothing for
// the key, unless the tool is one that may be released again.
func (m *Machine) Take(claim Claim) {
	held := &Held{Claim: claim}
	m.open[claim.ID] = held
	if claim.Key != (Digest{}) {
		m.results.drop(m.keys[claim.Key])
		m.keys[claim.Key] = held
		m.order = append(m.order, held)
	}
	m.Advance(claim.Time)
}

// Abandon undoes Take for a decision that never became durable.
func (m *Machine) Abandon(id ID) {
	held, ok := m.open[id]
	if !ok {
		return
	}
	delete(m.open, id)
	m.release(held)
}

// Finish records how an admission ended, and returns it. An outcome of an
// admission that is not open changes nothing. A call that never started gives
// its idempotency key back.
func (m *Machine) Finish(id ID, outcome *writv1.OutcomeRecord) (*Held, bool) {
	held, ok := m.open[id]
	if !ok {
		return nil, false
	}
	delete(m.open, id)
	held.Outcome = outcome
	switch {
	case outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED:
		m.release(held)
	case m.keys[held.Key] == held:
		m.results.keep(held)
	}
	return held, true
}

// Open returns the admissions without an outcome, by time and id.
func (m *Machine) Open() []*Held {
	held := make([]*Held, 0, len(m.open))
	for _, h := range m.open {
		held = append(held, h)
	}
	sort.Slice(held, func(i, j int) bool { return held[i].before(held[j]) })
	return held
}

func (m *Machine) release(held *Held) {
	if m.keys[held.Key] == held {
		delete(m.keys, held.Key)
	}
}

// spent says whether a key may be forgotten when there are too many.
func (m *Machine) spent(held *Held, now time.Time) bool {
	return held.Outcome != nil && now.Sub(held.Time) >= KeptAtLeast
}

func (m *Machine) forget(now time.Time) {
	for len(m.order) > 0 {
		held := m.order[0]
		holds := m.keys[held.Key] == held
		if holds && now.Sub(held.Time) < KeptFor && (len(m.keys) <= m.maxKeys || !m.spent(held, now)) {
			return
		}
		if holds {
			m.results.drop(held)
			delete(m.keys, held.Key)
		}
		m.order = m.order[1:]
	}
}

// Dump writes the state as lines in a fixed order, equal for equal states.
func (m *Machine) Dump() string {
	var lines []string
	for key, held := range m.keys {
		state := "OPEN"
		if held.Outcome != nil {
			state = held.Outcome.GetState().String()
			if held.Outcome.GetState() == writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED && len(held.Outcome.GetResult()) == 0 {
				state += " without its result"
			}
		}
		lines = append(lines, fmt.Sprintf("key %x %s %s\n", key[:8], held.ID, state))
	}
	for id := range m.open {
		lines = append(lines, fmt.Sprintf("open %s\n", id))
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}
