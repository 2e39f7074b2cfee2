// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/collector/store"
)

func findings(t *testing.T, s *store.Store, origin string) []store.Finding {
	t.Helper()
	got, err := s.Findings(t.Context(), origin)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAFindingKeepsBothHeadsAndIsCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base, _, two := fork(t)
	s := open(t, dir)
	held := base.putAll(t, s)
	at := func(minute int) time.Time {
		return time.Unix(1_700_000_000, 0).Add(time.Duration(minute) * time.Minute)
	}
	f := store.Finding{Origin: base.origin, Kind: "fork", Detail: "two trees", HeldSize: held.Size, HeldRoot: held.Root, Head: two.bundles[1].GetHead()}
	for _, minute := range []int{1, 3, 2} {
		f.Time = at(minute)
		if err := s.AddFinding(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	other := store.Finding{Origin: "never seen", Kind: "gap", Detail: "x", Time: at(9)}
	if err := s.AddFinding(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	f.HeldHead, f.FirstTime, f.Time, f.Count = base.bundles[0].GetHead(), at(1), at(3), 3
	other.FirstTime, other.Count = at(9), 1
	if diff := cmp.Diff([]store.Finding{f, other}, findings(t, s, "")); diff != "" {
		t.Errorf("all findings (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]store.Finding{f}, findings(t, s, base.origin)); diff != "" {
		t.Errorf("those of the ledger (-want +got):\n%s", diff)
	}
	report, err := store.Verify(t.Context(), dir)
	if err != nil || report.Err() != nil || report.Findings != 2 || report.Ledgers[0].Findings != 1 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const n = 200
	for i := range n {
		if err := s.AddFinding(t.Context(), store.Finding{
			Origin: "o", Kind: "rollback", Detail: strings.Repeat("ä", 5000), Head: fmt.Appendf(nil, "head %d", i),
		}); err != nil {
			t.Fatal(err)
		}
	}
	got := findings(t, s, "o")
	count := 0
	for _, f := range got {
		count += f.Count
		if len(f.Detail) > 1024 || !strings.HasPrefix(f.Detail, "ää") {
			t.Errorf("a detail of %d bytes", len(f.Detail))
		}
	}
	if len(got) > 20 || count != n {
		t.Errorf("%d rows that count %d, want at most 20 that count %d", len(got), count, n)
	}
	if err := s.AddFinding(t.Context(), store.Finding{Origin: "o", Kind: "gap"}); err != nil || len(findings(t, s, "o")) != len(got)+1 {
		t.Errorf("a finding of another kind is not kept: %v", err)
	}
}

func TestAFindingThatSaysNothingOrTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	for name, f := range map[string]store.Finding{
		"no origin":         {Kind: "gap"},
		"no kind":           {Origin: "o"},
		"a long origin":     {Origin: strings.Repeat("o", 513), Kind: "gap"},
		"a long head":       {Origin: "o", Kind: "gap", Head: make([]byte, 4097)},
		"a long head, held": {Origin: "o", Kind: "gap", HeldHead: make([]byte, 4097)},
		"a long root":       {Origin: "o", Kind: "gap", HeldRoot: bytes.Repeat([]byte{1}, 33)},
	} {
		if err := s.AddFinding(t.Context(), f); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: AddFinding = %v, want %v", name, err, store.ErrInvalid)
		}
	}
}

func TestStrangersLeaveRoomForFindingsAboutLedgersThatAreHeld(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	src := newSource(t, 1, day(1)...)
	src.putAll(t, s)
	const most, n = 1 << 10, 1<<10 + 20
	for i := range n {
		if err := s.AddFinding(t.Context(), store.Finding{Origin: fmt.Sprintf("stranger %d", i), Kind: "unknown_key"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddFinding(t.Context(), store.Finding{Origin: src.origin, Kind: "unknown_key"}); err != nil {
		t.Fatal(err)
	}
	kinds, err := s.CountFindings(t.Context())
	if err != nil || kinds["unknown_key"] != most+1 || len(kinds) != 1 {
		t.Errorf("CountFindings = %v, %v, want %d strangers and a ledger that is held", kinds, err, most)
	}
	count := 0
	for _, f := range findings(t, s, "") {
		count += f.Count
	}
	if count != n+1 {
		t.Errorf("%d are counted, want %d", count, n+1)
	}
}
