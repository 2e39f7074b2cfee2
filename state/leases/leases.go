// SPDX-License-Identifier: Apache-2.0

// Package leases lets many agents draw on one budget without asking anybody at each
// call. The collector gives each agent a slice of the budget's window, a [Pool] being its
// side; an agent draws from its slice alone, [Shares] being the agent's side. Both are
// pure machines: what the other side says goes in, the clock is a parameter, nothing is
// written or sent.
//
// They promise that what all agents have taken and may still take in a window is never
// more than the limit, whatever is lost, sent twice, late or out of order, whoever is
// killed, and whatever the agents' clocks show. That rests on three rules:
//
//   - A slice is one number, its cap: all that the agent may ever take in the window, what
//     it has taken included. The pool counts caps, not what is left.
//   - Only the holder lowers its cap, and only before it says so. Each of its asks states
//     its cap and takes the place of all asks before; an answer to any but the newest is
//     not taken. So an answer that was lost was never a slice.
//   - A holder of which nothing is heard keeps its cap until the window ends: what was
//     drawn and not reported counts as taken. Only where each draw is reported before its
//     call is answered (LEASE_REPORT_FIRST) is the rest free again without the holder's
//     word, and only when the slice has lapsed: the holder stops a skew before the end of
//     its lease by its own clock, counted from before it asked, and the pool waits for a
//     skew longer, counted from when it answered (SEMANTICS 21).
//
// What a call took beyond its declared worst case is not bound by this: such an overrun
// is counted, and leaves less for all.
//
// The windows are the collector's: an agent's wall clock decides on nothing. The limit is
// that of the bundle of the agent that asks; where bundles differ, no agent is given
// anything beyond its own.
//
// They do not lock, sign or store: their owners do. [Sign] and [Verify] are how a
// collector vouches for what it gives.
package leases

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
)

// Skew is how far the clocks of a collector and an agent may come apart within one
// lease: each waits for as long in the other's favour.
const Skew = time.Second

// balance is what an ask and an answer say of whose balance they are about.
type balance interface {
	GetBudget() string
	GetKey() []string
	GetDimension() writv1.Dimension
}

// idOf names a balance: its parts, each after its length, so that no two are told alike.
func idOf(of balance) string {
	b := make([]byte, 0, 128)
	b = append(strconv.AppendInt(b, int64(len(of.GetBudget())), 10), ':')
	b = strconv.AppendInt(append(b, of.GetBudget()...), int64(of.GetDimension()), 10)
	for _, part := range of.GetKey() {
		b = append(strconv.AppendInt(append(b, ','), int64(len(part)), 10), ':')
		b = append(b, part...)
	}
	return string(b)
}

// BalanceID names the balance that an ask is about, among those of all windows of that
// kind.
func BalanceID(ask *writv1.LeaseAsk) string {
	id := idOf(ask)
	if c := ask.GetCalendar(); c != nil {
		return fmt.Sprintf("%s@%d%+d", id, c.GetUnit(), int64(c.GetUtcOffset().AsDuration()))
	}
	return fmt.Sprintf("%s@%d", id, int64(ask.GetWindow().AsDuration()))
}

// windowOf returns the window that an ask is about.
func windowOf(ask *writv1.LeaseAsk) budgets.Window {
	return budgets.WindowOf(&writv1.Budget{Window: ask.GetWindow(), Calendar: ask.GetCalendar()})
}

// plus adds within what an amount can be; neither is negative.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Signer signs what a collector gives, as a note.Signer does.
type Signer interface {
	Sign(text []byte) ([]byte, error)
}

// Verifier knows a collector's signature, as a note.Verifier does.
type Verifier interface {
	Verify(text, signature []byte) bool
}

// Sign returns the grant to the agent of a ledger with the collector's signature.
func Sign(signer Signer, origin string, grant *writv1.LeaseGrant) (*writv1.LeaseGrant, error) {
	text, err := textOf(origin, grant)
	if err != nil {
		return nil, err
	}
	signed := proto.CloneOf(grant)
	if signed.Signature, err = signer.Sign(text); err != nil {
		return nil, fmt.Errorf("sign a grant: %w", err)
	}
	return signed, nil
}

// Verify says whether a grant is the collector's, to the agent of that ledger. An agent
// MUST take no other.
func Verify(collector Verifier, origin string, grant *writv1.LeaseGrant) bool {
	text, err := textOf(origin, grant)
	return err == nil && collector.Verify(text, grant.GetSignature())
}

func textOf(origin string, grant *writv1.LeaseGrant) ([]byte, error) {
	bare := proto.CloneOf(grant)
	bare.Signature = nil
	text, err := canonical.Append([]byte("writ/lease-grant/v1\n"+origin+"\n"), bare)
	if err != nil {
		return nil, fmt.Errorf("the text of a grant: %w", err)
	}
	return text, nil
}
