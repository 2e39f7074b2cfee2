// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/writ-dev/writ/envoy/identity"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

const desk = "spiffe://example.org/ns/desk/sa/planner"

func config() *writv1.IdentityConfig {
	return &writv1.IdentityConfig{
		Jwt: &writv1.JwtConfig{Issuer: "https://issuer.example", Audiences: []string{"desk"}, JwksFile: "jwks.json", RolesClaim: "groups"},
		Workloads: []*writv1.WorkloadConfig{
			{SpiffeId: desk, Tenant: "acme", Roles: []string{"planner"}},
		},
	}
}

func resolver(t *testing.T, config *writv1.IdentityConfig) *identity.Resolver {
	t.Helper()
	r, err := identity.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verified is what jwt_authn leaves of a token with these claims.
func verified(t *testing.T, claims map[string]any) *structpb.Struct {
	t.Helper()
	token, err := structpb.NewStruct(map[string]any{resources.JWTClaims: claims})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearer(more ...wire.Header) []wire.Header {
	return append([]wire.Header{{Name: "authorization", Value: "Bearer x.y.z"}}, more...)
}

func TestWhoCallsIsWhoWasVerified(t *testing.T) {
	t.Parallel()
	ann := verified(t, map[string]any{"sub": "ann", "tenant": "acme", "groups": []any{"agent", "planner"}})
	cases := map[string]struct {
		evidence identity.Evidence
		want     *writv1.Principal
	}{
		"a workload that is configured":     {identity.Evidence{Peer: desk}, &writv1.Principal{Workload: desk, Tenant: "acme", Roles: []string{"planner"}}},
		"a workload that is not configured": {identity.Evidence{Peer: desk + "2"}, &writv1.Principal{Workload: desk + "2"}},
		"a user":                            {identity.Evidence{Token: ann, Headers: bearer()}, &writv1.Principal{User: "ann", Tenant: "acme", Roles: []string{"agent", "planner"}}},
		"a workload for a user":             {identity.Evidence{Peer: desk, Token: ann, Headers: bearer()}, &writv1.Principal{Workload: desk, User: "ann", Tenant: "acme", Roles: []string{"agent", "planner"}}},
		"plain headers do not count": {
			identity.Evidence{Peer: desk, Headers: []wire.Header{{Name: "x-user", Value: "root"}, {Name: "x-role", Value: "admin"}}},
			&writv1.Principal{Workload: desk, Tenant: "acme", Roles: []string{"planner"}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, refusal := resolver(t, config()).Principal(&c.evidence)
			if refusal != nil {
				t.Fatalf("refused: %v", refusal)
			}
			if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("principal (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatProvesNothingOrDisagreesIsRefused(t *testing.T) {
	t.Parallel()
	failed, err := structpb.NewStruct(map[string]any{resources.JWTFailure: map[string]any{"code": 6}})
	if err != nil {
		t.Fatal(err)
	}
	token := func(claims map[string]any) identity.Evidence {
		return identity.Evidence{Peer: desk, Token: verified(t, claims), Headers: bearer()}
	}
	const unknown, invalid = writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID
	cases := map[string]struct {
		evidence identity.Evidence
		want     writv1.Reason
	}{
		"nothing":                          {identity.Evidence{}, unknown},
		"a certificate without a URI":      {identity.Evidence{Peer: "CN=desk"}, unknown},
		"a token that was not verified":    {identity.Evidence{Peer: desk, Token: failed, Headers: bearer()}, invalid},
		"a header that left no claims":     {identity.Evidence{Peer: desk, Headers: bearer()}, invalid},
		"two authorization headers":        {identity.Evidence{Peer: desk, Headers: bearer(bearer()...)}, invalid},
		"a token without a user":           {token(map[string]any{"tenant": "acme"}), invalid},
		"a tenant that is empty":           {token(map[string]any{"sub": "ann", "tenant": ""}), invalid},
		"a user that is a number":          {token(map[string]any{"sub": 7.0}), invalid},
		"a user with a line break":         {token(map[string]any{"sub": "a\nb"}), invalid},
		"a user that is too long":          {token(map[string]any{"sub": strings.Repeat("a", 257)}), invalid},
		"roles that are text":              {token(map[string]any{"sub": "ann", "groups": "admin"}), invalid},
		"a role that is empty":             {token(map[string]any{"sub": "ann", "groups": []any{""}}), invalid},
		"a tenant other than the workload": {token(map[string]any{"sub": "ann", "tenant": "evil"}), invalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, refusal := resolver(t, config()).Principal(&c.evidence)
			if refusal == nil || refusal.Reason != c.want {
				t.Errorf("principal %v, refusal %v, want %s", got, refusal, reasons.Name(c.want))
			}
		})
	}
}

func TestHeadersCountOnlyWhereTheyAreTrusted(t *testing.T) {
	t.Parallel()
	trusting := &writv1.IdentityConfig{TrustedHeaders: &writv1.TrustedHeaders{User: "X-User", Roles: "x-roles", Tenant: "x-tenant"}}
	r := resolver(t, trusting)
	got, refusal := r.Principal(&identity.Evidence{Headers: []wire.Header{
		{Name: "x-user", Value: "ann"}, {Name: "x-roles", Value: "agent, lead"}, {Name: "x-tenant", Value: "acme"},
	}})
	want := &writv1.Principal{User: "ann", Roles: []string{"agent", "lead"}, Tenant: "acme"}
	if diff := cmp.Diff(want, got, protocmp.Transform()); refusal != nil || diff != "" {
		t.Errorf("refusal %v, principal (-want +got):\n%s", refusal, diff)
	}
	if _, refusal := r.Principal(&identity.Evidence{Headers: []wire.Header{{Name: "x-user", Value: "ann"}, {Name: "x-user", Value: "ann"}}}); refusal == nil {
		t.Error("a trusted header that occurs twice is taken")
	}
	if _, refusal := r.Principal(&identity.Evidence{Headers: bearer(wire.Header{Name: "x-user", Value: "ann"})}); refusal == nil {
		t.Error("a token is passed over where no issuer is configured")
	}
}

func TestAWorkloadIsConfiguredOnce(t *testing.T) {
	t.Parallel()
	twice := config()
	twice.Workloads = append(twice.Workloads, &writv1.WorkloadConfig{SpiffeId: desk})
	if _, err := identity.New(twice); err == nil {
		t.Error("no error")
	}
}
