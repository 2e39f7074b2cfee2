// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
)

// Report is what Verify found.
type Report struct {
	// Damage is what is wrong with the file as a whole: what SQLite's own check says, a
	// schema that is not this program's, rows that belong to nothing. Empty: nothing is.
	Damage []string
	// Ledgers are the ledgers in it, by origin.
	Ledgers []LedgerReport
	// Findings is the number of findings in it, those about ledgers not held included.
	Findings int
}

// LedgerReport is what Verify found of one ledger.
type LedgerReport struct {
	Origin string
	// VerifierKey is the key that the store keeps of the ledger.
	VerifierKey string
	// Size is the number of records that were verified and are under a signed head, and
	// Root the root of the tree over them. Where there is no fault, that is all of them.
	Size uint64
	Root [32]byte
	// Heads is the number of signed heads that were verified.
	Heads  uint64
	Epochs uint64
	// Ended says that the last record is an END.
	Ended bool
	// Fault is the first thing that is wrong, or nil.
	Fault *Fault
	// Findings is the number of findings about the ledger.
	Findings int
	// Notes are what is odd and no fault.
	Notes []string
}

// Fault is the first thing that is wrong with a ledger in a store. Every record before it
// was verified.
type Fault struct {
	Origin string
	// Index of the record, or of the next where it is no record.
	Index uint64
	What  error
}

// Error says where and what.
func (f *Fault) Error() string { return fmt.Sprintf("%s: record %d: %v", f.Origin, f.Index, f.What) }

// Unwrap is what is wrong.
func (f *Fault) Unwrap() error { return f.What }

// Err is nil where nothing is wrong, and else everything that is: each ledger's first
// Fault, and the damage.
func (r *Report) Err() error {
	var errs []error
	for _, l := range r.Ledgers {
		if l.Fault != nil {
			errs = append(errs, l.Fault)
		}
	}
	for _, d := range r.Damage {
		errs = append(errs, fmt.Errorf("%w: %s", ErrCorrupt, d))
	}
	return errors.Join(errs...)
}
