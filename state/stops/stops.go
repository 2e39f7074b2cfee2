// SPDX-License-Identifier: Apache-2.0

// Package stops keeps which calls operators have stopped. It is a pure machine: orders
// go in as events, the clock is a parameter, and nothing is written, so that a [Machine]
// can be folded from a ledger.
//
// It promises that orders may come in any sequence and any number of times with the
// same result: a stop is known by the digest of what it says, it ends when it says, and
// one that was lifted stays lifted. An order that arrives late or again, by way of a
// collector that nobody has to trust, therefore changes nothing.
//
// It does not verify signatures, nor whether an operator may order: agent does, before
// an order is recorded. It does not lock: its owner does.
package stops

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// MaxHeld bounds the stops that are held, lifted ones too: each call is held
	// against all of them.
	MaxHeld = 256
	// MaxFacts bounds the stops that one decision is told of. One is enough to deny.
	MaxFacts = 8
	// MaxLife is the longest that a stop lasts.
	MaxLife = 31 * 24 * time.Hour
	// Skew is how far an operator's clock may be ahead.
	Skew = time.Minute
)

// Reasons why an order is not taken.
var (
	// ErrFull says that there is no room for another stop.
	ErrFull = errors.New("too many stops are held")
	// ErrExpired says that the stop has ended.
	ErrExpired = errors.New("the stop has ended")
	// ErrLifted says that the stop was lifted, which is for good.
	ErrLifted = errors.New("the stop was lifted")
	// ErrLife says that the stop lasts longer than [MaxLife], or ends before it begins.
	ErrLife = errors.New("a stop ends after it was ordered, and at most 31 days later")
	// ErrFuture says that the stop was ordered in a time to come.
	ErrFuture = errors.New("the stop is of a time to come: set the clock")
)

// IDOf returns the id of a stop, 32 hexadecimal digits of the digest of what it says.
func IDOf(stop *writv1.Stop) (string, error) {
	text, err := canonical.Marshal(stop)
	if err != nil {
		return "", fmt.Errorf("name a stop: %w", err)
	}
	sum := sha256.Sum256(append([]byte("writ/stop/v1\n"), text...))
	return hex.EncodeToString(sum[:16]), nil
}

// Call is what a stop is held against.
type Call struct {
	// Tool is the tool's name as it was asked for.
	Tool string
	// Principal is who asks, verified.
	Principal *writv1.Principal
	// Model and Pin are what the envelope claims of the model.
	Model, Pin string
	// Session is the session, as 32 hexadecimal digits; empty is none.
	Session string
}

// Machine holds stops.
type Machine struct {
	selects func(selector, tool string) bool
	held    map[string]*writv1.StopOrder
	// version changes whenever what is stopped may have changed.
	version uint64
}

// New returns a machine without stops. Selects says whether a selector of tools, as
// grants have them, selects a tool.
func New(selects func(selector, tool string) bool) *Machine {
	return &Machine{selects: selects, held: make(map[string]*writv1.StopOrder)}
}

// Takes says whether an order would be taken at the time now, and whether it would
// change anything.
func (m *Machine) Takes(order *writv1.StopOrder, now time.Time) (changes bool, err error) {
	id, err := IDOf(order.GetStop())
	if err != nil {
		return false, err
	}
	begin, end := order.GetStop().GetTime().AsTime(), order.GetStop().GetExpireTime().AsTime()
	held, known := m.held[id]
	lifted := held.GetChoice() == writv1.StopChoice_STOP_CHOICE_LIFT
	switch {
	case !end.After(begin) || end.Sub(begin) > MaxLife:
		return false, ErrLife
	case begin.After(now.Add(Skew)):
		return false, ErrFuture
	case !now.Before(end):
		return false, ErrExpired
	case lifted && order.GetChoice() == writv1.StopChoice_STOP_CHOICE_STOP:
		return false, ErrLifted
	case !known && len(m.held) >= MaxHeld:
		return false, ErrFull
	}
	return !known || held.GetChoice() != order.GetChoice(), nil
}

// Take takes an order that was recorded.
func (m *Machine) Take(order *writv1.StopOrder) error {
	id, err := IDOf(order.GetStop())
	if err != nil {
		return err
	}
	if m.held[id].GetChoice() != writv1.StopChoice_STOP_CHOICE_LIFT {
		m.held[id] = order
		m.version++
	}
	return nil
}

// Empty says whether nothing is held.
func (m *Machine) Empty() bool { return len(m.held) == 0 }

// Version changes whenever what [Machine.Facts] says may have changed by an order.
func (m *Machine) Version() uint64 { return m.version }

// Facts returns the stops that speak of a call at the time now, by their ids; nil when
// there is none.
func (m *Machine) Facts(call *Call, now time.Time) []*writv1.StopFact {
	var found []*writv1.StopFact
	for id, order := range m.held {
		if inForce(order, now) && m.speaks(order.GetStop().GetScope(), call) {
			found = append(found, &writv1.StopFact{Id: id, ExpireTime: order.GetStop().GetExpireTime()})
		}
	}
	slices.SortFunc(found, func(a, b *writv1.StopFact) int { return strings.Compare(a.GetId(), b.GetId()) })
	return found[:min(len(found), MaxFacts)]
}

// InForce returns how many stops are in force at the time now.
func (m *Machine) InForce(now time.Time) int {
	n := 0
	for _, order := range m.held {
		if inForce(order, now) {
			n++
		}
	}
	return n
}

func inForce(order *writv1.StopOrder, now time.Time) bool {
	return order.GetChoice() == writv1.StopChoice_STOP_CHOICE_STOP && now.Before(order.GetStop().GetExpireTime().AsTime())
}

// speaks says whether everything that a scope names applies to a call.
func (m *Machine) speaks(scope *writv1.StopScope, call *Call) bool {
	who := call.Principal
	return (scope.GetTool() == "" || m.selects(scope.GetTool(), call.Tool)) &&
		(scope.Tenant == nil || scope.GetTenant() == who.GetTenant()) &&
		(scope.GetPrincipal() == "" || scope.GetPrincipal() == who.GetWorkload() || scope.GetPrincipal() == who.GetUser()) &&
		(scope.GetModel() == "" || scope.GetModel() == call.Model || scope.GetModel() == call.Pin) &&
		(scope.GetSession() == "" || scope.GetSession() == call.Session)
}

// Held returns the stops that are held, lifted ones too, oldest first.
func (m *Machine) Held() []*writv1.HeldStop {
	all := make([]*writv1.HeldStop, 0, len(m.held))
	for id, order := range m.held {
		all = append(all, &writv1.HeldStop{Id: id, Order: order})
	}
	slices.SortFunc(all, func(a, b *writv1.HeldStop) int {
		if c := a.GetOrder().GetStop().GetTime().AsTime().Compare(b.GetOrder().GetStop().GetTime().AsTime()); c != 0 {
			return c
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
	return all
}

// Restore takes a stop out of a snapshot.
func (m *Machine) Restore(held *writv1.HeldStop) error {
	if held.GetOrder() == nil {
		return errors.New("a stop is missing")
	}
	return m.Take(held.GetOrder())
}

// Forget forgets the stops that have ended by now, lifted ones too: neither can be
// ordered again.
func (m *Machine) Forget(now time.Time) {
	maps.DeleteFunc(m.held, func(_ string, order *writv1.StopOrder) bool {
		return !now.Before(order.GetStop().GetExpireTime().AsTime())
	})
}

// Dump writes the stops as text, equal for equal machines.
func (m *Machine) Dump() string {
	var out strings.Builder
	for _, held := range m.Held() {
		fmt.Fprintf(&out, "stop %s %s by %s\n", held.GetId(), held.GetOrder().GetChoice(), held.GetOrder().GetOperator())
	}
	return out.String()
}
