// SPDX-License-Identifier: Apache-2.0

// Package stream takes a ledger from an agent to a collector, over
// writ.v1.LedgerService.
//
// The agent's side is [Sender]. It promises that a record is sent until the
// collector's signed acknowledgement covers it, whatever happens to either in
// between; that it goes on only from a state of the collector's whose root is the
// ledger's own; and that it believes an acknowledgement only if the collector's key
// signed it and the root in it is the ledger's own at that size.
//
// The collector's side is [Receiver], a state machine without I/O: given what is
// held of a ledger, it says of each bundle whether it continues that, and names
// what is wrong where it does not, as a [Finding] that keeps both signed heads. It
// stores nothing and signs nothing: that is the collector's.
//
// Acknowledgements are cumulative, and the same bundle may be sent twice. The
// package does not look into bodies.
//
//	r := stream.NewReceiver(holding, verifier)
//	welcome, err := r.Hello(hello)
//	accepted, err := r.Feed(bundle) // store accepted, then acknowledge accepted.Holding
package stream

import (
	"fmt"

	"github.com/writ-dev/writ/ledger"
)

// Bounds of a bundle, as a sender makes it.
const (
	BundleRecords = 256
	BundleBytes   = 256 << 10
)

// Credit is how many bytes of bundles a collector lets be sent before it
// acknowledges, where it has no other wish.
const Credit = 4 << 20

// FindingKind is what is wrong with a ledger.
type FindingKind int

// What may be wrong with a ledger.
const (
	// Malformed: bytes that no agent of ours sends. Nothing is said about the ledger.
	Malformed FindingKind = iota
	// Foreign: the ledger or the record is another one's.
	Foreign
	// UnknownKey: a head that the ledger's known key did not sign.
	UnknownKey
	// Gap: records between those held and those sent are missing.
	Gap
	// Rollback: the ledger is shorter than what is held of it.
	Rollback
	// Fork: the ledger has another tree than what is held of it.
	Fork
)

// String is the finding's name, as it stands in metrics and stores.
func (k FindingKind) String() string {
	names := [...]string{"malformed", "foreign", "unknown_key", "gap", "rollback", "fork"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("finding(%d)", int(k))
	}
	return names[k]
}

// Finding is the error of a ledger that is not taken. Held and Head are the
// evidence: what was held, and the signed note that disagrees, where there is one.
type Finding struct {
	Kind   FindingKind
	Detail string
	Held   ledger.Head
	Head   []byte
	Err    error
}

// Error says what is wrong.
func (f *Finding) Error() string {
	text := fmt.Sprintf("%v: %s", f.Kind, f.Detail)
	if f.Err != nil {
		text += ": " + f.Err.Error()
	}
	return text
}

// Unwrap is the cause.
func (f *Finding) Unwrap() error { return f.Err }
