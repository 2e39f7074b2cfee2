// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// decision is a decision as the ledger has it.
type decision struct {
	id       string
	index    uint64
	record   *writv1.DecisionRecord
	outcomes []*writv1.OutcomeRecord
	// folded is what the records before this one come to, for each of the
	// balances that the decision read.
	folded []int64
}

func (d *decision) allows() bool {
	return d.record.GetDecision().GetVerdict() == writv1.Verdict_VERDICT_ALLOW
}

// withdrawn says that the call was allowed and then not let through.
func (d *decision) withdrawn() bool {
	return slices.ContainsFunc(d.outcomes, func(o *writv1.OutcomeRecord) bool {
		return o.GetState() == writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED
	})
}

// succeeded says that the ledger has the outcome of a call that went well.
func (d *decision) succeeded() bool {
	return slices.ContainsFunc(d.outcomes, func(o *writv1.OutcomeRecord) bool {
		return o.GetState() == writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED
	})
}

// account is what the ledger says, read after each kill from where the reading
// before had ended. It reads the segments by their documented form, and not with the
// code that the agent reads them with.
type account struct {
	dir      string
	verifier note.Verifier
	// read are the segments that were read.
	read map[string]bool
	// size is the number of records, epochs that of starts.
	size, epochs uint64
	decisions    map[string]*decision
	byTrace      map[string][]*decision
	// balances are the fold of what decisions take and outcomes give back.
	balances map[string]int64
	// torn counts records that were written and that no head covers, left the bytes at
	// the end of the ledger that none does; starts are what the starts since the reading
	// before say of such bytes.
	torn   int
	left   uint64
	starts []uint64
	// tails counts the starts that had something to say.
	tails int
	// vain says that a start was killed since then: it may have cut off what is left
	// before it could record that.
	vain bool
}

func newAccount(dir string) *account {
	return &account{
		dir: dir, read: map[string]bool{}, decisions: map[string]*decision{},
		byTrace: map[string][]*decision{}, balances: map[string]int64{},
	}
}

// torn says whether the fault is a frame that the kill cut short. Nothing behind the
// last head was answered; what was is in the client's list.
func torn(fault *ledger.Fault) bool {
	return strings.HasSuffix(fault.What.Error(), "cut short")
}

// update verifies and reads the segments that are new. The agent MUST be dead.
func (a *account) update(t *testing.T) {
	t.Helper()
	if a.verifier == nil {
		a.verifier = verifierOf(t, a.dir)
	}
	names := segments(t, a.dir)
	left := a.left
	a.starts, a.left = nil, 0
	for i, name := range names {
		if a.read[name] {
			continue
		}
		a.read[name] = true
		text, err := os.ReadFile(filepath.Join(a.dir, name))
		if err != nil {
			t.Fatalf("read the ledger: %v", err)
		}
		report := ledger.VerifySegment(name, bytes.NewReader(text), a.verifier)
		if fault := report.Fault; fault != nil && (i < len(names)-1 || !torn(fault)) {
			t.Fatalf("the ledger that the kill left does not verify: %v", fault)
		}
		if report.First != a.size {
			t.Fatalf("%s begins with record %d, want %d: what was there before the kill is not there after it", name, report.First, a.size)
		}
		for _, record := range a.covered(t, text) {
			a.fold(t, record)
		}
		if a.size != report.Size {
			t.Fatalf("%s: %d records were read, and %d verified", name, a.size, report.Size)
		}
	}
	if !a.vain && len(a.starts) == 1 && a.starts[0] != left {
		t.Errorf("the agent's start says that %d bytes were cut off, and the kill left %d that no head covers", a.starts[0], left)
	}
	a.vain = false
}

func verifierOf(t *testing.T, dir string) note.Verifier {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "log.vkey"))
	if err != nil {
		t.Fatalf("read the ledger's key: %v", err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("read the ledger's key: %v", err)
	}
	return verifier
}

// segments returns the names of the segments, oldest first.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.dlog"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}

// covered returns the records of a segment that a head covers: only those may have
// been answered.
func (a *account) covered(t *testing.T, text []byte) []*writv1.Record {
	t.Helper()
	const prefix, recordFrame, headFrame = 9, 1, 2
	var covered, batch []*writv1.Record
	after := text // what no head covers
	for len(text) >= prefix {
		length, kind := int(binary.LittleEndian.Uint32(text)), text[8]
		if len(text) < prefix+length {
			break
		}
		switch kind {
		case recordFrame:
			record := &writv1.Record{}
			if err := canonical.Unmarshal(text[prefix:prefix+length], record); err != nil {
				t.Fatalf("read a record: %v", err)
			}
			batch = append(batch, record)
		case headFrame:
			covered, batch = append(covered, batch...), nil
		}
		text = text[prefix+length:]
		if kind != recordFrame {
			after = text
		}
	}
	a.torn += len(batch)
	a.left += uint64(len(after))
	return covered
}

// fold takes one record into the account.
func (a *account) fold(t *testing.T, record *writv1.Record) {
	t.Helper()
	if record.GetIndex() != a.size {
		t.Fatalf("record %d stands at %d", record.GetIndex(), a.size)
	}
	a.size++
	a.epochs = max(a.epochs, record.GetEpoch())
	body, err := ledger.Body(record)
	if err != nil {
		t.Fatalf("record %d: %v", record.GetIndex(), err)
	}
	id := hex.EncodeToString(record.GetDecisionId())
	switch body := body.(type) {
	case *writv1.StartRecord:
		a.starts = append(a.starts, body.GetLostBytes())
		a.tails += int(min(body.GetLostBytes(), 1))
	case *writv1.DecisionRecord:
		a.foldDecision(t, &decision{id: id, index: record.GetIndex(), record: body})
	case *writv1.OutcomeRecord:
		made := a.decisions[id]
		if made == nil {
			t.Fatalf("record %d is the outcome of %s, which was never decided", record.GetIndex(), id)
		}
		if len(made.outcomes) > 0 {
			t.Errorf("record %d is a second outcome of %s: %v, after %v", record.GetIndex(), id, body, made.outcomes[0])
		}
		made.outcomes = append(made.outcomes, body)
		for _, back := range body.GetGivenBack() {
			a.balances[balanceOf(back)] -= back.GetAmount()
		}
		for _, over := range body.GetOverrun() {
			a.balances[balanceOf(over)] += over.GetAmount()
		}
	}
}

func (a *account) foldDecision(t *testing.T, d *decision) {
	t.Helper()
	if a.decisions[d.id] != nil {
		t.Errorf("record %d decides %s again", d.index, d.id)
	}
	a.decisions[d.id] = d
	a.byTrace[d.record.GetTraceParent()] = append(a.byTrace[d.record.GetTraceParent()], d)
	for _, read := range d.record.GetFacts().GetBalances() {
		d.folded = append(d.folded, a.balances[balanceOf(read)])
	}
	if !d.allows() {
		return
	}
	for _, e := range d.record.GetDecision().GetEffects() {
		if taken := e.GetReserve(); taken != nil {
			a.balances[balanceOf(taken)] += taken.GetAmount()
		}
	}
}

// balanceOf names the balance of a reservation or of a fact.
func balanceOf(b interface {
	GetBudget() string
	GetKey() []string
	GetDimension() writv1.Dimension
},
) string {
	window := ""
	switch b := b.(type) {
	case *writv1.Reserve:
		window = b.GetWindowStart().AsTime().String()
	case *writv1.Balance:
		window = b.GetWindowStart().AsTime().String()
	}
	return fmt.Sprintf("%s %q %s %s", b.GetBudget(), b.GetKey(), b.GetDimension(), window)
}
