// SPDX-License-Identifier: Apache-2.0

// Package identity finds out who calls through Envoy, from what Envoy verified.
//
// Three sources count: the URI of the certificate of the mutual TLS peer, the
// claims that the filter jwt_authn verified and left in metadata, and headers
// that the configuration names as trusted. Any other header is what the caller
// says of itself, and proves nothing.
//
//	resolver, err := identity.New(config.GetIdentity())
//	...
//	principal, refusal := resolver.Principal(&identity.Evidence{Peer: uri, Token: metadata, Headers: headers})
//
// The package promises that a token which was presented and not verified refuses
// the call, even where the peer alone would have named a workload, and that
// sources which disagree refuse it. It verifies nothing itself: whoever reaches
// the agent's socket for Envoy speaks for Envoy.
package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/wire"
)

// Bounds of what becomes of evidence, as the rules of Principal have them.
const (
	maxWorkload = 2048
	maxUser     = 256
	maxName     = 128
	maxRoles    = 64
)

// Evidence is what Envoy says of who calls.
type Evidence struct {
	// Peer is the identity of the mutual TLS peer; empty is none.
	Peer string
	// Token is what jwt_authn left in its metadata namespace; nil is nothing.
	Token *structpb.Struct
	// Headers are the request's, all of them.
	Headers []wire.Header
}

// Resolver finds out who calls. It does not change after New; several goroutines
// may use it.
type Resolver struct {
	workloads           map[string]*writv1.WorkloadConfig
	tokens              bool
	user, roles, tenant string // names of claims
	trusted             *writv1.TrustedHeaders
}

// New returns a Resolver. It refuses a configuration in which a SPIFFE ID would
// name two workloads.
func New(config *writv1.IdentityConfig) (*Resolver, error) {
	jwt := config.GetJwt()
	r := &Resolver{
		workloads: make(map[string]*writv1.WorkloadConfig),
		tokens:    jwt != nil,
		user:      orElse(jwt.GetUserClaim(), "sub"),
		roles:     orElse(jwt.GetRolesClaim(), "roles"),
		tenant:    orElse(jwt.GetTenantClaim(), "tenant"),
		trusted:   config.GetTrustedHeaders(),
	}
	for _, workload := range config.GetWorkloads() {
		if _, found := r.workloads[workload.GetSpiffeId()]; found {
			return nil, fmt.Errorf("workload %q is configured twice", workload.GetSpiffeId())
		}
		r.workloads[workload.GetSpiffeId()] = workload
	}
	return r, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Principal returns who the evidence proves the caller to be.
func (r *Resolver) Principal(evidence *Evidence) (*writv1.Principal, *reasons.Error) {
	principal := &writv1.Principal{}
	if strings.HasPrefix(evidence.Peer, "spiffe://") && len(evidence.Peer) <= maxWorkload {
		known := r.workloads[evidence.Peer]
		principal.Workload, principal.Tenant = evidence.Peer, known.GetTenant()
		principal.Roles = slices.Clone(known.GetRoles())
	}
	if err := r.addToken(principal, evidence); err != nil {
		return nil, invalidToken(err)
	}
	if err := r.addTrusted(principal, evidence.Headers); err != nil {
		return nil, reasons.Wrap(err, writv1.Reason_REASON_DECODE_HEADER_CONFLICT, "", "the headers that say who calls disagree with what was verified")
	}
	if principal.GetWorkload() == "" && principal.GetUser() == "" {
		return nil, reasons.New(writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, "", "no verified source names a workload or a user")
	}
	slices.Sort(principal.Roles)
	principal.Roles = slices.Compact(principal.Roles)
	if len(principal.Roles) > maxRoles {
		return nil, invalidToken(fmt.Errorf("%d roles", len(principal.Roles)))
	}
	return principal, nil
}

// invalidToken keeps what was wrong from the caller.
func invalidToken(cause error) *reasons.Error {
	return reasons.Wrap(cause, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID, "",
		"the token does not verify; get a fresh one from the configured issuer")
}

// addToken adds what jwt_authn verified. A header that was presented and left no
// claims was not verified, whatever the reason; claims without the header are not
// of this request's token (the generated configuration takes it from nowhere else).
func (r *Resolver) addToken(principal *writv1.Principal, evidence *Evidence) error {
	presented := values(evidence.Headers, "authorization")
	claims := evidence.Token.GetFields()[resources.JWTClaims].GetStructValue()
	switch {
	case len(presented) > 1:
		return errors.New("more than one authorization header")
	case !r.tokens && len(presented) > 0:
		return errors.New("no issuer is configured")
	case !r.tokens:
		return nil
	case len(presented) == 0:
		return nil
	case claims == nil || evidence.Token.GetFields()[resources.JWTFailure] != nil:
		return errors.New("the authorization header holds no token that jwt_authn verified")
	}
	return r.addClaims(principal, claims)
}

func (r *Resolver) addClaims(principal *writv1.Principal, claims *structpb.Struct) error {
	user, err := textClaim(claims, r.user, maxUser)
	if err != nil {
		return err
	}
	if user == "" {
		return fmt.Errorf("the token has no claim %q", r.user)
	}
	tenant, err := textClaim(claims, r.tenant, maxName)
	if err != nil {
		return err
	}
	roles, err := listClaim(claims, r.roles)
	if err != nil {
		return err
	}
	principal.User = user
	principal.Roles = append(principal.Roles, roles...)
	return setTenant(principal, tenant)
}

// setTenant adds a tenant; two sources that both name one agree.
func setTenant(principal *writv1.Principal, tenant string) error {
	if tenant == "" {
		return nil
	}
	if principal.GetTenant() != "" && principal.GetTenant() != tenant {
		return errors.New("two sources name different tenants")
	}
	principal.Tenant = tenant
	return nil
}

// addTrusted adds what headers say that the configuration names.
func (r *Resolver) addTrusted(principal *writv1.Principal, headers []wire.Header) error {
	user, err := trusted(headers, r.trusted.GetUser(), maxUser)
	if err != nil {
		return err
	}
	if user != "" && principal.GetUser() != "" && user != principal.GetUser() {
		return errors.New("the token and the trusted header name different users")
	}
	tenant, err := trusted(headers, r.trusted.GetTenant(), maxName)
	if err != nil {
		return err
	}
	roles, err := trusted(headers, r.trusted.GetRoles(), maxRoles*(maxName+1))
	if err != nil {
		return err
	}
	for role := range strings.SplitSeq(roles, ",") {
		if role = strings.TrimSpace(role); role != "" {
			principal.Roles = append(principal.Roles, role)
		}
		if len(role) > maxName {
			return errors.New("a role is too long")
		}
	}
	principal.User = orElse(user, principal.GetUser())
	return setTenant(principal, tenant)
}

// trusted returns the only value of a header that the configuration names.
func trusted(headers []wire.Header, name string, limit int) (string, error) {
	if name == "" {
		return "", nil
	}
	found := values(headers, strings.ToLower(name))
	switch {
	case len(found) == 0:
		return "", nil
	case len(found) > 1:
		return "", fmt.Errorf("the header %s occurs more than once", name)
	case !plain(found[0], limit):
		return "", fmt.Errorf("the header %s is too long or not plain text", name)
	}
	return found[0], nil
}

func values(headers []wire.Header, name string) []string {
	var found []string
	for i := range headers {
		if headers[i].Name == name {
			found = append(found, headers[i].Value)
		}
	}
	return found
}

func textClaim(claims *structpb.Struct, name string, limit int) (string, error) {
	value, found := claims.GetFields()[name]
	if !found {
		return "", nil
	}
	text, ok := value.GetKind().(*structpb.Value_StringValue)
	if !ok || text.StringValue == "" || !plain(text.StringValue, limit) {
		return "", fmt.Errorf("the claim %q is not plain text of 1 to %d bytes", name, limit)
	}
	return text.StringValue, nil
}

func listClaim(claims *structpb.Struct, name string) ([]string, error) {
	value, found := claims.GetFields()[name]
	if !found {
		return nil, nil
	}
	list, ok := value.GetKind().(*structpb.Value_ListValue)
	if !ok || len(list.ListValue.GetValues()) > maxRoles {
		return nil, fmt.Errorf("the claim %q is not a list of at most %d", name, maxRoles)
	}
	var texts []string
	for _, element := range list.ListValue.GetValues() {
		text, ok := element.GetKind().(*structpb.Value_StringValue)
		if !ok || text.StringValue == "" || !plain(text.StringValue, maxName) {
			return nil, fmt.Errorf("the claim %q has an element that is not a name", name)
		}
		texts = append(texts, text.StringValue)
	}
	return texts, nil
}

// plain reports whether text is UTF-8 without control characters.
func plain(text string, limit int) bool {
	return len(text) <= limit && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}
