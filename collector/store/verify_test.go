// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/stream"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// closed is a store of two ledgers, 21 records each in bundles of 4, that was closed.
// Bundles of the two alternate: records 0 to 3 of the first are 1 to 4 of the
// sequence, those of the second 5 to 8.
func closed(t testing.TB) (dir string, one, two *source) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, dir)
	one, two = newSource(t, 4, day(10)...), newSource(t, 4, day(10)...)
	held := map[string]stream.Holding{}
	for i := range one.bundles {
		for _, src := range []*source{one, two} {
			h := held[src.origin]
			h.Origin = src.origin
			a := src.accept(t, h, src.bundles[i])
			if err := s.Put(t.Context(), h, a, src.vkey); err != nil {
				t.Fatal(err)
			}
			held[src.origin] = a.Holding
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, one, two
}

func TestAStoreThatNobodyChangedVerifies(t *testing.T) {
	t.Parallel()
	dir, one, two := closed(t)
	before := leftOver(t, dir)
	report, err := store.Verify(t.Context(), dir)
	if err != nil || report.Err() != nil {
		t.Fatalf("Verify = %+v, %v", report, err)
	}
	if len(report.Ledgers) != 2 {
		t.Fatalf("%d ledgers, want 2", len(report.Ledgers))
	}
	for _, l := range report.Ledgers {
		src := one
		if l.Origin == two.origin {
			src = two
		}
		if l.Origin != src.origin || l.Size != 21 || l.Heads != 6 || l.Epochs != 1 || l.Ended || l.VerifierKey != src.vkey || len(l.Notes) > 0 || l.Root == [32]byte{} {
			t.Errorf("the report says %+v", l)
		}
	}
	if after := leftOver(t, dir); after != before {
		t.Errorf("Verify changed the files from\n%s to\n%s", before, after)
	}
}

func TestVerifyNamesTheFirstRecordThatIsBad(t *testing.T) {
	t.Parallel()
	const first, second = "(SELECT id FROM ledgers ORDER BY id LIMIT 1)", "(SELECT id FROM ledgers ORDER BY id LIMIT 1 OFFSET 1)"
	for _, tc := range []struct {
		name, statement string
		index           uint64 // of the first ledger
		what            string // of its fault; none where there is only damage
		damage          string
		other           string // the second ledger's fault
		otherIndex      uint64
	}{
		{"a bundle is deleted", "DELETE FROM payloads WHERE seq = 9; DELETE FROM bundles WHERE seq = 9", 4, "the next bundle begins at 8", "stands at 13", "", 0},
		{"a bundle is deleted with its index", "DELETE FROM payloads WHERE seq = 9; DELETE FROM bundles WHERE seq = 9; DELETE FROM records WHERE seq BETWEEN 9 AND 12", 4, "the next bundle begins at 8", "stands at 13", "", 0},
		{"the records of a bundle are deleted", "DELETE FROM payloads WHERE seq = 9", 4, "are not there", "", "", 0},
		{"an index row is deleted", "DELETE FROM records WHERE seq = 11", 6, "not in the index", "", "", 0},
		{"two index rows are swapped", "UPDATE records SET seq = -1 WHERE seq = 10; UPDATE records SET seq = 10 WHERE seq = 12; UPDATE records SET seq = 12 WHERE seq = -1", 5, "the index says something else", "", "", 0},
		{"an index row says another tool", "UPDATE records SET tool = 'x' WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an outcome's row says another tool", "UPDATE records SET tool = 'x' WHERE seq = 3", 2, "the index says something else", "", "", 0},
		{"an index row says no verdict", "UPDATE records SET verdict = NULL WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another decision", "UPDATE records SET decision_id = zeroblob(16) WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another tenant", "UPDATE records SET tenant = 'x' WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another user", "UPDATE records SET user = 'x' WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another reason", "UPDATE records SET reason = 9 WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another bundle", "UPDATE records SET bundle = zeroblob(31) WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an outcome's row says another session", "UPDATE records SET session = zeroblob(15) WHERE seq = 3", 2, "the index says something else", "", "", 0},
		{"an index row says another workflow", "UPDATE records SET workflow = 'x' WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another request", "UPDATE records SET request_id = 'x' WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says no trace", "UPDATE records SET trace_id = NULL WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says that no check failed", "UPDATE records SET checks = NULL WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another time", "UPDATE records SET time = time + 1 WHERE seq = 4", 3, "the index says something else", "", "", 0},
		{"an index row says another ledger", "UPDATE records SET ledger = " + second + " WHERE seq = 4", 3, "the index says something else", "", "22 rows of the index for 21", 21},
		{"a bundle says another time", "UPDATE bundles SET end_time = end_time + 1 WHERE seq = 9", 4, "another time", "", "", 0},
		{"a bundle says more records", "UPDATE bundles SET count = 5 WHERE seq = 9", 8, "4 records in a bundle of 5", "stands at 13", "", 0},
		{"a bundle says fewer records", "UPDATE bundles SET count = 3 WHERE seq = 9", 7, "more records than the bundle's 3", "stands at 13", "", 0},
		{"a head is that of the bundle before", "UPDATE payloads SET head = (SELECT head FROM payloads WHERE seq = 1) WHERE seq = 9", 8, "size 4, want size 8", "", "", 0},
		{"a head is another ledger's", "UPDATE payloads SET head = (SELECT head FROM payloads WHERE seq = 13) WHERE seq = 9", 8, "not a signed head", "", "", 0},
		{"a head is cut", "UPDATE payloads SET head = substr(head, 1, length(head) - 1) WHERE seq = 9", 8, "not a signed head", "", "", 0},
		{"a kept leaf is changed", "UPDATE payloads SET leaves = CAST(substr(leaves, 1, 64) || zeroblob(32) || substr(leaves, 97) AS BLOB) WHERE seq = 9", 6, "its leaf is not the one kept", "", "", 0},
		{"the records of two bundles are swapped", "UPDATE payloads SET records = (SELECT records FROM payloads WHERE seq = 13) WHERE seq = 9", 4, "another ledger", "", "", 0},
		{"the key is another ledger's", "UPDATE ledgers SET vkey = (SELECT vkey FROM ledgers WHERE id = " + second + ") WHERE id = " + first, 0, "the verifier key is that of", "", "", 0},
		{"the size is smaller", "UPDATE ledgers SET size = 20 WHERE id = " + first, 21, "21 records are there, 20 are said to be held", "", "", 0},
		{"the root is another", "UPDATE ledgers SET root = zeroblob(32) WHERE id = " + first, 21, "the tree that is said to be held", "", "", 0},
		{"the compact range is another", "UPDATE ledgers SET hashes = zeroblob(length(hashes)) WHERE id = " + first, 21, "the tree that is said to be held", "", "", 0},
		{"the newest head is an older one", "UPDATE ledgers SET head = (SELECT head FROM payloads WHERE seq = 9) WHERE id = " + first, 21, "the head or the epoch", "", "", 0},
		{"the epoch is another", "UPDATE ledgers SET epoch = 9 WHERE id = " + first, 21, "the head or the epoch", "", "", 0},
		{"an index row belongs to no record", "INSERT INTO records SELECT -7, ledger, position, time, kind, decision_id, tool, verdict, tenant, workload, user, reason, bundle, session, workflow, request_id, trace_id, checks FROM records WHERE seq = 4", 21, "22 rows of the index for 21", "1 index rows more than", "", 0},
		{"an index row lies beyond the end", "INSERT INTO records SELECT 99, ledger, position, time, kind, decision_id, tool, verdict, tenant, workload, user, reason, bundle, session, workflow, request_id, trace_id, checks FROM records WHERE seq = 4", 0, "", "rows up to 99 of the sequence", "", 0},
		{"the last bundle is deleted", "DELETE FROM payloads WHERE seq = 42; DELETE FROM bundles WHERE seq = 42; DELETE FROM records WHERE seq = 42", 0, "", "entries: row 11 has no bundles", "20 records are there, 21 are said to be held", 20},
		{"the last bundle is deleted with its place in the log", "DELETE FROM entries WHERE bundle = 42; DELETE FROM payloads WHERE seq = 42; DELETE FROM bundles WHERE seq = 42; DELETE FROM records WHERE seq = 42", 0, "", "", "20 records are there, 21 are said to be held", 20},
		{"a bundle's place in the log is deleted", "DELETE FROM entries WHERE bundle = 42", 0, "", "1 bundles that are not in the log", "", 0},
		{"a place in the log is left out", "UPDATE entries SET position = position + 1 WHERE bundle = 42", 0, "", "1 entries missing from the log", "", 0},
		{"the ledger is deleted", "DELETE FROM ledgers WHERE id = " + first, 0, "", "bundles without a ledger", "", 0},
		{"a table is added", "CREATE TABLE more (x)", 0, "", "the schema is not", "", 0},
		{"a trigger is added", "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM findings;END", 0, "", "the schema is not", "", 0},
		{"an index is dropped", "DROP INDEX records_tool", 0, "", "the schema is not", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, one, two := closed(t)
			edit(t, dir, strings.Split(tc.statement, "; ")...)
			report, err := store.Verify(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if report.Err() == nil {
				t.Fatal("it verifies")
			}
			expectFault(t, report, one.origin, tc.index, tc.what)
			expectFault(t, report, two.origin, tc.otherIndex, tc.other)
			if damage := strings.Join(report.Damage, "\n"); tc.damage != "" && !strings.Contains(damage, tc.damage) || tc.damage == "" && damage != "" {
				t.Errorf("the damage is %q, want %q", damage, tc.damage)
			}
		})
	}
}

// expectFault expects a fault of a ledger at a record, or none where what is empty.
func expectFault(t *testing.T, r *store.Report, origin string, index uint64, what string) {
	t.Helper()
	for _, l := range r.Ledgers {
		switch {
		case l.Origin != origin:
		case what == "" && l.Fault != nil:
			t.Errorf("the fault is %v, want none", l.Fault)
		case what != "" && l.Fault == nil:
			t.Errorf("there is no fault, want one of record %d: %s", index, what)
		case what != "" && (l.Fault.Index != index || l.Fault.Origin != origin || !strings.Contains(l.Fault.Error(), what)):
			t.Errorf("the fault is %v, want one of record %d: %s", l.Fault, index, what)
		}
	}
}

func TestAByteFlippedInTheRecordsIsTracedToItsRecord(t *testing.T) {
	t.Parallel()
	dir, one, _ := closed(t)
	db := database(t, dir)
	defer db.Close() //nolint:errcheck // a test
	var payload []byte
	if err := db.QueryRowContext(t.Context(), `SELECT records FROM payloads WHERE seq = 9`).Scan(&payload); err != nil {
		t.Fatal(err)
	}
	var record []uint64 // of each byte
	for i, r := range one.bundles[1].GetRecords() {
		record = append(record, slices.Repeat([]uint64{4 + uint64(i)}, 4+len(r))...)
	}
	if len(record) != len(payload) {
		t.Fatalf("%d bytes of records in a bundle of %d", len(record), len(payload))
	}
	set := func(b []byte) {
		if _, err := db.ExecContext(t.Context(), `UPDATE payloads SET records = ? WHERE seq = 9`, b); err != nil {
			t.Fatal(err)
		}
	}
	for range 60 {
		at, bit := rand.IntN(len(payload)), byte(1)<<rand.IntN(8)
		flipped := bytes.Clone(payload)
		flipped[at] ^= bit
		set(flipped)
		report, err := store.Verify(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range report.Ledgers {
			if l.Origin == one.origin && (l.Fault == nil || l.Fault.Index != record[at]) {
				t.Errorf("bit %02x of byte %d: %v, want record %d", bit, at, l.Fault, record[at])
			}
		}
	}
	set(payload)
	if report, err := store.Verify(t.Context(), dir); err != nil || report.Err() != nil {
		t.Errorf("mended, Verify = %v, %v", report.Err(), err)
	}
}

// what is everything of a store that Verify vouches for.
func what(ctx context.Context, dir string) (string, error) {
	s, err := store.OpenReadOnly(ctx, dir)
	if err != nil {
		return "", err
	}
	defer s.Close() //nolint:errcheck // a test
	ledgers, err := s.Ledgers(ctx)
	if err != nil {
		return "", err
	}
	out := ""
	for _, l := range ledgers {
		out += fmt.Sprintln(l.Origin, l.VerifierKey, l.Size, l.Root, l.Head)
	}
	for _, filter := range []*writv1.RecordFilter{nil, {Tool: "tool.1"}, {Tenant: "acme"}, {Principal: "u1"}, {Verdict: 2}} {
		records, err := s.List(ctx, store.Selection{Filter: filter, Forward: true, Limit: 1000})
		if err != nil {
			return "", err
		}
		for _, r := range records {
			out += fmt.Sprintln(r.Seq, r.Origin, r.Raw)
		}
	}
	return out, nil
}

func TestABitFlippedAnywhereInTheFileIsFoundOrChangesNothing(t *testing.T) {
	t.Parallel()
	dir, _, _ := closed(t)
	file, err := os.ReadFile(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := what(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for range 60 {
		flipped := bytes.Clone(file)
		at, bit := rand.IntN(len(file)), byte(1)<<rand.IntN(8)
		flipped[at] ^= bit
		if err := os.WriteFile(filepath.Join(dir, "store.db"), flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := store.Verify(t.Context(), dir)
		if err != nil || report.Err() != nil {
			found++
			continue
		}
		if got, err := what(t.Context(), dir); err != nil || got != want {
			t.Errorf("bit %02x of byte %d: it verifies, and says something else: %v", bit, at, err)
		}
	}
	t.Logf("%d of 60 are found, the others change nothing", found)
	if found == 0 {
		t.Error("none is found")
	}
}

func TestAKeyInAnotherFormIsFound(t *testing.T) {
	t.Parallel()
	dir, one, _ := closed(t)
	db := database(t, dir)
	var vkey string
	if err := db.QueryRowContext(t.Context(), "SELECT vkey FROM ledgers WHERE origin = ?", one.origin).Scan(&vkey); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	name, rest, _ := strings.Cut(vkey, "+")
	hash, key, _ := strings.Cut(rest, "+")
	other := name + "+" + strings.ToUpper(hash) + "+" + key
	if other == vkey {
		return // One key in forty has a hash without a letter, and one form alone.
	}
	edit(t, dir, "UPDATE ledgers SET vkey = '"+other+"' WHERE origin = '"+one.origin+"'")
	report, err := store.Verify(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	expectFault(t, report, one.origin, 0, "one form")
}

func TestAnIndexRowThatBelongsToNoRecordGivesNone(t *testing.T) {
	t.Parallel()
	dir, _, _ := closed(t)
	edit(t, dir, "INSERT INTO records SELECT 99, ledger, position, time, kind, decision_id, tool, verdict, tenant, workload, user, reason, bundle, session, workflow, request_id, trace_id, checks FROM records WHERE seq = 4")
	s := open(t, dir)
	if got, err := s.List(t.Context(), store.Selection{}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("List = %d records, %v, want %v", len(got), err, store.ErrCorrupt)
	}
}

func TestKeysFromElsewhereAreBelievedOverTheStores(t *testing.T) {
	t.Parallel()
	dir, one, two := closed(t)
	_, impostor, err := note.GenerateKey(rand.NewChaCha8([32]byte{}), one.origin)
	if err != nil {
		t.Fatal(err)
	}
	other, err := note.NewVerifier(impostor)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		keys  map[string]note.Verifier
		fault string
		notes int // of the second ledger
	}{
		{"the same keys", map[string]note.Verifier{one.origin: one.key, two.origin: two.key}, "", 0},
		{"a key of the first ledger only", map[string]note.Verifier{one.origin: one.key}, "", 1},
		{"another key", map[string]note.Verifier{one.origin: other, two.origin: two.key}, "keeps another key", 0},
	} {
		report, err := store.VerifyWith(t.Context(), dir, tc.keys)
		if err != nil {
			t.Fatal(err)
		}
		expectFault(t, report, one.origin, 0, tc.fault)
		for _, l := range report.Ledgers {
			if l.Origin == two.origin && len(l.Notes) != tc.notes {
				t.Errorf("%s: notes %q, want %d", tc.name, l.Notes, tc.notes)
			}
		}
	}
}

func TestAnEpochThatDoesNotBeginWithOneSTARTIsNoted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		entries []ledger.Entry
		note    string
	}{
		{"one", []ledger.Entry{started(), decision(1)}, ""},
		{"none", []ledger.Entry{decision(1)}, "record 0: epoch 1 begins without a START"},
		{"two", []ledger.Entry{started(), decision(1), started()}, "record 2: a second START of epoch 1"},
	} {
		dir := t.TempDir()
		s := open(t, dir)
		newSource(t, 2, tc.entries...).putAll(t, s)
		report, err := store.Verify(t.Context(), dir)
		if err != nil || report.Err() != nil {
			t.Fatal(report, err)
		}
		if got := strings.Join(report.Ledgers[0].Notes, "\n"); got != tc.note {
			t.Errorf("%s: notes %q, want %q", tc.name, got, tc.note)
		}
	}
}

func TestVerifyEndsWhenItsCallerGoes(t *testing.T) {
	t.Parallel()
	dir, _, _ := closed(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Verify(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %v, want %v", err, context.Canceled)
	}
	if _, err := store.Verify(t.Context(), t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Verify of nothing = %v, want %v", err, os.ErrNotExist)
	}
}

// filtered are the columns that filters compare beside those of the first version.
var filtered = []string{"reason", "bundle", "session", "workflow", "request_id", "trace_id", "checks"}

func TestAStoreOfAnEarlierVersionIsBroughtUpWithAllThatIsThere(t *testing.T) {
	t.Parallel()
	dir, one, _ := closed(t)
	db := database(t, dir)
	var version int
	if err := errors.Join(db.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version), db.Close()); err != nil {
		t.Fatal(err)
	}
	back := []string{"DROP TABLE entries", "DROP INDEX records_agent", "DROP INDEX records_reason", "DROP INDEX records_session", "DROP INDEX records_request", "DROP INDEX records_trace"}
	for _, column := range filtered {
		back = append(back, "ALTER TABLE records DROP COLUMN "+column)
	}
	edit(t, dir, append(back, fmt.Sprintf("PRAGMA user_version = %d", version-3))...)
	if _, err := store.OpenReadOnly(t.Context(), dir); !errors.Is(err, store.ErrVersion) {
		t.Errorf("reading an earlier version = %v, want %v", err, store.ErrVersion)
	}
	s := open(t, dir)
	got := list(t, s, store.Selection{Filter: &writv1.RecordFilter{Origin: one.origin, Expression: `request_id = "r-7"`}})
	if len(got) != 2 {
		t.Errorf("%d records of a request are found, want a decision and its outcome", len(got))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := store.Verify(t.Context(), dir); err != nil || report.Err() != nil {
		t.Errorf("Verify = %v, %v", report.Err(), err)
	}
}
