// SPDX-License-Identifier: Apache-2.0

package admissions_test

import (
	"errors"
	"testing"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/admissions"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func claim(id, key byte, at time.Time) admissions.Claim {
	c := admissions.Claim{Time: at}
	c.ID[0], c.Key[0] = id, key
	return c
}

func ended(state writv1.OutcomeState) *writv1.OutcomeRecord {
	return &writv1.OutcomeRecord{State: state}
}

func take(t *testing.T, m *admissions.Machine, c admissions.Claim) {
	t.Helper()
	if err := m.Room(c); err != nil {
		t.Fatalf("Room(%v): %v", c.ID, err)
	}
	m.Take(c)
}

func TestAKeyIsHeldByTheFirstCallThroughItsOutcome(t *testing.T) {
	t.Parallel()
	m := admissions.New(10)
	first := claim(1, 7, noon)
	take(t, m, first)
	held, ok := m.Earlier(first.Key, noon)
	if !ok || held.ID != first.ID || held.Outcome != nil {
		t.Fatalf("Earlier = %v, %v; want the open first call", held, ok)
	}
	m.Finish(first.ID, ended(writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED))
	held, ok = m.Earlier(first.Key, noon)
	if !ok || held.Outcome.GetState() != writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED {
		t.Fatalf("Earlier = %v, %v; want the outcome", held, ok)
	}
	if open := m.Open(); len(open) != 0 {
		t.Errorf("still open: %v", open)
	}
}

func TestACallThatNeverStartedGivesItsKeyBack(t *testing.T) {
	t.Parallel()
	m := admissions.New(10)
	for _, end := range []func(admissions.ID){
		m.Abandon,
		func(id admissions.ID) { m.Finish(id, ended(writv1.OutcomeState_OUTCOME_STATE_NOT_STARTED)) },
	} {
		c := claim(1, 7, noon)
		take(t, m, c)
		end(c.ID)
		if _, ok := m.Earlier(c.Key, noon); ok {
			t.Error("the key is still held")
		}
	}
}

func TestAKeyIsForgottenAfterItsTime(t *testing.T) {
	t.Parallel()
	m := admissions.New(1)
	c := claim(1, 7, noon)
	take(t, m, c)
	m.Finish(c.ID, ended(writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED))
	if _, ok := m.Earlier(c.Key, noon.Add(admissions.KeptFor-1)); !ok {
		t.Error("forgotten too early")
	}
	if _, ok := m.Earlier(c.Key, noon.Add(admissions.KeptFor)); ok {
		t.Error("not forgotten")
	}
	take(t, m, claim(2, 8, noon.Add(admissions.KeptFor)))
}

func TestNoMoreThanTheLimitIsKept(t *testing.T) {
	t.Parallel()
	m := admissions.New(1)
	take(t, m, claim(1, 0, noon))
	if err := m.Room(claim(2, 0, noon)); !errors.Is(err, admissions.ErrFull) {
		t.Errorf("Room = %v, want ErrFull", err)
	}
}

func TestKeysOfWhatHasEndedDoNotKeepOthersOut(t *testing.T) {
	t.Parallel()
	m := admissions.New(1)
	m.SetMaxKeys(2)
	for i := range byte(2) {
		c := claim(1+i, 1+i, noon)
		take(t, m, c)
		m.Finish(c.ID, ended(writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED))
	}
	soon := noon.Add(admissions.KeptAtLeast - 1)
	if err := m.Room(claim(3, 3, soon)); !errors.Is(err, admissions.ErrFull) {
		t.Errorf("Room = %v for a third key, want ErrFull", err)
	}
	if err := m.Room(claim(3, 0, soon)); err != nil {
		t.Errorf("Room = %v for a call without a key", err)
	}
	late := noon.Add(admissions.KeptAtLeast)
	take(t, m, claim(3, 3, late))
	if _, ok := m.Earlier(claim(1, 1, late).Key, late); ok {
		t.Error("the oldest key is still held")
	}
	if _, ok := m.Earlier(claim(2, 2, late).Key, late); !ok {
		t.Error("more than the oldest is forgotten")
	}
}

func TestOutcomesOfUnknownAdmissionsChangeNothing(t *testing.T) {
	t.Parallel()
	m := admissions.New(10)
	take(t, m, claim(1, 7, noon))
	before := m.Dump()
	if _, ok := m.Finish(admissions.ID{9}, ended(writv1.OutcomeState_OUTCOME_STATE_FAILED)); ok {
		t.Error("an unknown admission finished")
	}
	if after := m.Dump(); after != before {
		t.Errorf("state changed from\n%sto\n%s", before, after)
	}
}

func TestAnIDIsReadBackFromItsText(t *testing.T) {
	t.Parallel()
	id := admissions.ID{1, 2, 0xff}
	got, err := admissions.ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseID(%s) = %v, %v", id, got, err)
	}
	for _, bad := range []string{"", "00", id.String() + "0", "zz" + id.String()[2:]} {
		if _, err := admissions.ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) succeeded", bad)
		}
	}
}
