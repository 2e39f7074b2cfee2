// SPDX-License-Identifier: Apache-2.0

package shared_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/collector/shared"
	"github.com/writ-dev/writ/collector/store"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// vault is a store that fails when it is told to.
type vault struct {
	*store.Store
	full error
}

// PutShare fails while the vault is full.
func (v *vault) PutShare(ctx context.Context, balance string, held *writv1.HeldShare) error {
	if v.full != nil {
		return v.full
	}
	return v.Store.PutShare(ctx, balance, held)
}

// counter is where agents ask, over a vault, at a time.
type counter struct {
	t      *testing.T
	vault  *vault
	now    time.Time
	leases *shared.Leases
}

func openCounter(t *testing.T) *counter {
	t.Helper()
	kept, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kept.Close() })
	c := &counter{t: t, vault: &vault{Store: kept}, now: noon}
	c.open()
	return c
}

// open begins anew over the same store, as after a restart.
func (c *counter) open() {
	c.t.Helper()
	var err error
	c.leases, err = shared.NewLeases(c.t.Context(), shared.LeaseOptions{
		Store: c.vault, Clock: func() time.Time { return c.now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// ask asks for all of 100 an hour, as an agent that has nothing.
func (c *counter) ask(origin string, seq uint64) (int64, error) {
	grant, err := c.leases.Ask(c.t.Context(), origin, asksFor(seq))
	return grant.GetCap(), err
}

func asksFor(seq uint64) *writv1.LeaseAsk {
	return &writv1.LeaseAsk{
		Seq: seq, Budget: "b", Dimension: 1, Limit: 100, Window: durationpb.New(time.Hour), Lease: durationpb.New(time.Minute),
		Report: writv1.LeaseReport_LEASE_REPORT_LATER, Want: 100, Need: 50,
	}
}

func TestWhatWasGivenIsCountedAfterARestart(t *testing.T) {
	t.Parallel()
	c := openCounter(t)
	if got, err := c.ask("one", 1); got != 50 || err != nil {
		t.Fatalf("the first gets %d, %v", got, err)
	}
	c.open()
	if got, err := c.ask("two", 1); got != 50 || err != nil {
		t.Errorf("the second gets %d, %v", got, err)
	}
	c.open()
	if got, err := c.ask("three", 1); got != 0 || err != nil {
		t.Errorf("the third gets %d, %v, and there is nothing left", got, err)
	}
	if got, err := c.leases.Ask(t.Context(), "one", asksFor(1)); got != nil || err != nil {
		t.Errorf("an ask that was answered before the restart is answered again: %v, %v", got, err)
	}
	c.now = noon.Add(48 * time.Hour)
	c.open()
	if held, err := c.vault.Shares(t.Context(), time.Unix(0, 0)); len(held) != 0 || err != nil {
		t.Errorf("days later %v are kept, %v", held, err)
	}
	if got, err := c.ask("three", 2); got != 50 || err != nil {
		t.Errorf("in a new window the third gets %d, %v", got, err)
	}
}

func TestWhatCannotBeKeptIsNotGiven(t *testing.T) {
	t.Parallel()
	c := openCounter(t)
	c.vault.full = errors.New("the disk is full")
	if got, err := c.ask("one", 1); got != 0 || !errors.Is(err, c.vault.full) {
		t.Fatalf("%d are given, %v", got, err)
	}
	c.vault.full = nil
	for _, origin := range []string{"two", "three"} {
		if got, err := c.ask(origin, 1); got != 50 || err != nil {
			t.Errorf("then %s gets %d, %v", origin, got, err)
		}
	}
}

func TestAsksThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	c := openCounter(t)
	for name, change := range map[string]func(*writv1.LeaseAsk){
		"without a window":      func(a *writv1.LeaseAsk) { a.Window = nil },
		"with two":              func(a *writv1.LeaseAsk) { a.Calendar = &writv1.CalendarWindow{Unit: 1} },
		"without a lease":       func(a *writv1.LeaseAsk) { a.Lease = nil },
		"that takes back":       func(a *writv1.LeaseAsk) { a.Taken = -1 },
		"of no dimension":       func(a *writv1.LeaseAsk) { a.Dimension = 0 },
		"that reports who knew": func(a *writv1.LeaseAsk) { a.Report = 9 },
	} {
		ask := proto.CloneOf(asksFor(1))
		change(ask)
		if got, err := c.leases.Ask(t.Context(), "one", ask); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
