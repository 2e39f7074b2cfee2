// SPDX-License-Identifier: Apache-2.0

package shared_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/shared"
	"github.com/writ-dev/writ/collector/store"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
	"github.com/writ-dev/writ/state/stops"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// desk is a store of orders with three operators: all of all tenants, acme and globex of
// one each.
type desk struct {
	t     *testing.T
	store *store.Store
	now   time.Time
	keys  map[string]*approvals.Key
	stops *shared.Stops
}

func openDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, now: noon, keys: make(map[string]*approvals.Key)}
	var err error
	if d.store, err = store.Open(t.Context(), t.TempDir(), store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.store.Close() })
	for _, user := range []string{"all", "acme", "globex", "stranger"} {
		text, _, err := note.GenerateKey(rand.Reader, user)
		if err != nil {
			t.Fatal(err)
		}
		if d.keys[user], err = approvals.ParseKey(text); err != nil {
			t.Fatal(err)
		}
	}
	d.open()
	return d
}

// open begins anew over the same store, as after a restart.
func (d *desk) open() {
	d.t.Helper()
	var err error
	d.stops, err = shared.NewStops(d.t.Context(), shared.StopOptions{
		Store: d.store, Operators: approvals.Operators{
			{User: "all", AllTenants: true, PublicKey: d.keys["all"].PublicKey()},
			{User: "acme", Tenant: "acme", PublicKey: d.keys["acme"].PublicKey()},
			{User: "globex", Tenant: "globex", PublicKey: d.keys["globex"].PublicKey()},
		},
		Connected: func() int { return 7 }, Clock: func() time.Time { return d.now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) order(who string, scope *writv1.StopScope, choice writv1.StopChoice) (*writv1.OrderStopResponse, error) {
	d.t.Helper()
	order, err := d.keys[who].Order(&writv1.Stop{
		Scope: scope, Time: timestamppb.New(noon), ExpireTime: timestamppb.New(noon.Add(time.Hour)),
	}, choice)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.stops.OrderStop(d.t.Context(), &writv1.OrderStopRequest{Order: order})
}

// as is a context in which an operator proves who it is, by a credential of that age.
func (d *desk) as(who string, age time.Duration) context.Context {
	d.t.Helper()
	c, err := d.keys[who].Credential(&writv1.ApproverCredential{Time: timestamppb.New(d.now.Add(-age))})
	if err != nil {
		d.t.Fatal(err)
	}
	text, err := proto.Marshal(c)
	if err != nil {
		d.t.Fatal(err)
	}
	return metadata.NewIncomingContext(d.t.Context(), metadata.Pairs("x-writ-approver-bin", string(text)))
}

func of(tenant string) *writv1.StopScope { return &writv1.StopScope{Tenant: &tenant} }

const (
	choiceStop = writv1.StopChoice_STOP_CHOICE_STOP
	choiceLift = writv1.StopChoice_STOP_CHOICE_LIFT
)

func TestOperatorsOrderAndSeeTheirOwnTenantsOnly(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	everything := &writv1.StopScope{Tool: "*"}
	for _, c := range []struct {
		name, who string
		scope     *writv1.StopScope
		choice    writv1.StopChoice
		want      codes.Code
	}{
		{"an operator of the tenant", "acme", of("acme"), choiceStop, codes.OK},
		{"the same again", "acme", of("acme"), choiceStop, codes.OK},
		{"an operator of all", "all", everything, choiceStop, codes.OK},
		{"one tenant's of all", "acme", everything, choiceStop, codes.PermissionDenied},
		{"one tenant's of another", "globex", of("acme"), choiceStop, codes.PermissionDenied},
		{"one tenant's lifts another's", "globex", of("acme"), choiceLift, codes.PermissionDenied},
		{"a stranger", "stranger", of("acme"), choiceStop, codes.PermissionDenied},
		{"a stop of nothing", "all", &writv1.StopScope{}, choiceStop, codes.InvalidArgument},
		{"neither a stop nor a lift", "all", everything, 0, codes.InvalidArgument},
		{"an operator of all lifts a tenant's", "all", of("acme"), choiceLift, codes.OK},
		{"what was lifted is ordered again", "acme", of("acme"), choiceStop, codes.FailedPrecondition},
	} {
		if _, err := d.order(c.who, c.scope, c.choice); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	for who, want := range map[string]int{"all": 2, "acme": 1, "globex": 0} {
		if out, err := d.stops.ListStops(d.as(who, 0), nil); err != nil || len(out.GetStops()) != want {
			t.Errorf("%s lists %v, %v, want %d", who, out, err, want)
		}
	}
	for name, ctx := range map[string]context.Context{
		"nobody": t.Context(), "a stranger": d.as("stranger", 0), "a credential of yesterday": d.as("all", 24*time.Hour),
		"what is no credential": metadata.NewIncomingContext(t.Context(), metadata.Pairs("x-writ-approver-bin", "x")),
	} {
		if out, err := d.stops.ListStops(ctx, nil); err == nil {
			t.Errorf("%s lists %v", name, out)
		}
	}
}

func TestOrdersAreKeptAndTold(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	_, changed := d.stops.Orders()
	out, err := d.order("all", of("acme"), choiceStop)
	if err != nil || out.GetAgents() != 7 {
		t.Fatalf("%v, %v", out, err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told")
	}
	_, changed = d.stops.Orders()
	if _, err := d.order("all", of("acme"), choiceStop); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("an order that changes nothing is told")
	default:
	}
	if _, err := d.order("all", of("globex"), choiceStop); err != nil {
		t.Fatal(err)
	}
	if _, err := d.order("all", of("globex"), choiceLift); err != nil {
		t.Fatal(err)
	}
	held := func() string {
		orders, _ := d.stops.Orders()
		var out []string
		for _, order := range orders {
			out = append(out, order.GetStop().GetScope().GetTenant()+" "+order.GetChoice().String())
		}
		return strings.Join(out, ", ")
	}
	before := held()
	if !strings.Contains(before, "acme STOP_CHOICE_STOP") || !strings.Contains(before, "globex STOP_CHOICE_LIFT") {
		t.Errorf("the orders are %s", before)
	}
	d.open()
	if after := held(); after != before {
		t.Errorf("after a restart they are %s, before it %s", after, before)
	}
	d.now = noon.Add(time.Hour)
	if left := held(); left != "" {
		t.Errorf("after their end they are %s", left)
	}
	d.open()
	if left := held(); left != "" {
		t.Errorf("after their end and a restart they are %s", left)
	}
}

func TestTheCollectorHoldsABoundedNumberOfStops(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	for i := range stops.MaxHeld {
		if _, err := d.order("all", &writv1.StopScope{Principal: strings.Repeat("x", i+1)}, choiceStop); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.order("all", of("acme"), choiceStop); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	d.now = noon.Add(2 * time.Hour)
	if _, err := d.order("all", of("acme"), choiceStop); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("one that has ended: %v", err)
	}
}
