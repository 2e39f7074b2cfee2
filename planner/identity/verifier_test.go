// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/writ-dev/writ/planner/identity"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	issuer  = "https://issuer.example"
	desk    = "spiffe://example.org/desk"
	deskUID = 4711
)

var now = time.Unix(1_800_000_000, 0)

// keyring holds a key of each kind, shared since RSA keys are slow to make.
var keyring = struct {
	rsa     *rsa.PrivateKey
	ec      *ecdsa.PrivateKey
	ed      ed25519.PrivateKey
	foreign ed25519.PrivateKey
}{
	rsa: must(rsa.GenerateKey(rand.Reader, 2048)),
	ec:  must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
	ed:  newEd25519(), foreign: newEd25519(),
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newEd25519() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return must(key, err)
}

func keySet() []jose.JSONWebKey {
	return []jose.JSONWebKey{
		{KeyID: "r", Key: keyring.rsa.Public(), Use: "sig"},
		{KeyID: "e", Key: keyring.ec.Public(), Algorithm: "ES256"},
		{KeyID: "d", Key: keyring.ed.Public()},
		{KeyID: "sealing", Key: newEd25519().Public(), Use: "enc"},
	}
}

func writeKeys(t testing.TB, file string, keys []jose.JSONWebKey) {
	t.Helper()
	data := must(json.Marshal(jose.JSONWebKeySet{Keys: keys}))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func config(file string) *writv1.IdentityConfig {
	uid := uint32(deskUID)
	return &writv1.IdentityConfig{
		Jwt: &writv1.JwtConfig{Issuer: issuer, Audiences: []string{"writ", "desk"}, JwksFile: file},
		Workloads: []*writv1.WorkloadConfig{
			{SpiffeId: desk, Uid: &uid, Tenant: "acme", Roles: []string{"planner", "agent"}},
			{SpiffeId: "spiffe://example.org/night"},
		},
	}
}

func newVerifier(t testing.TB) *identity.Verifier {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jwks.json")
	writeKeys(t, file, keySet())
	v, err := identity.New(identity.Options{Config: config(file), Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// evidence is what a request proves of its caller.
type evidence struct {
	Connection    credentials.AuthInfo
	Authorization []string
}

type signing struct {
	algorithm jose.SignatureAlgorithm
	key       any
	id        string
	typ       string
}

func (s signing) sign(t testing.TB, payload string) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if s.typ != "" {
		options = options.WithType(jose.ContentType(s.typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: jose.JSONWebKey{Key: s.key, KeyID: s.id}}, options)
	if err != nil {
		t.Fatal(err)
	}
	return must(must(signer.Sign([]byte(payload))).CompactSerialize())
}

// good signs with the Ed25519 key of the set.
func good() signing { return signing{algorithm: jose.EdDSA, key: keyring.ed, id: "d"} }

// with returns the claims of a valid token in which some members are replaced;
// nil takes one out.
func with(changes map[string]any) string {
	claims := map[string]any{
		"iss": issuer, "aud": "writ", "sub": "ann", "roles": []string{"support", "agent"}, "tenant": "acme",
		"exp": now.Unix() + 60, "nbf": now.Unix(), "iat": now.Unix(),
	}
	for name, value := range changes {
		if value == nil {
			delete(claims, name)
			continue
		}
		claims[name] = value
	}
	return string(must(json.Marshal(claims)))
}

func certificate(uris ...string) credentials.TLSInfo {
	leaf := &x509.Certificate{}
	for _, uri := range uris {
		leaf.URIs = append(leaf.URIs, must(url.Parse(uri)))
	}
	chain := []*x509.Certificate{leaf}
	return credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: chain, VerifiedChains: [][]*x509.Certificate{chain}}}
}

func TestEvidenceNamesAPrincipal(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	ann := &writv1.Principal{User: "ann", Roles: []string{"agent", "support"}, Tenant: "acme"}
	token := func(s signing, changes map[string]any) []string {
		return []string{"Bearer " + s.sign(t, with(changes))}
	}
	for name, tc := range map[string]struct {
		evidence evidence
		want     *writv1.Principal
	}{
		"a token signed with EdDSA":                {evidence{Authorization: token(good(), nil)}, ann},
		"a token signed with ES256":                {evidence{Authorization: token(signing{algorithm: jose.ES256, key: keyring.ec, id: "e"}, nil)}, ann},
		"a token signed with RS256":                {evidence{Authorization: token(signing{algorithm: jose.RS256, key: keyring.rsa, id: "r"}, nil)}, ann},
		"a token without a kid where one key fits": {evidence{Authorization: token(signing{algorithm: jose.EdDSA, key: keyring.ed}, nil)}, ann},
		"a token of type at+jwt":                   {evidence{Authorization: token(signing{algorithm: jose.EdDSA, key: keyring.ed, id: "d", typ: "at+jwt"}, nil)}, ann},
		"one of several audiences":                 {evidence{Authorization: token(good(), map[string]any{"aud": []string{"other", "desk"}})}, ann},
		"a scheme in other letters":                {evidence{Authorization: []string{"bEARER " + good().sign(t, with(nil))}}, ann},
		"expired within the skew":                  {evidence{Authorization: token(good(), map[string]any{"exp": now.Unix() - 29})}, ann},
		"not yet valid within the skew":            {evidence{Authorization: token(good(), map[string]any{"nbf": now.Unix() + 30, "iat": now.Unix() + 30})}, ann},
		"dates with fractions":                     {evidence{Authorization: token(good(), map[string]any{"exp": float64(now.Unix()) + 1.5})}, ann},
		"no roles, no tenant":                      {evidence{Authorization: token(good(), map[string]any{"roles": nil, "tenant": nil})}, &writv1.Principal{User: "ann"}},
		"an empty tenant":                          {evidence{Authorization: token(good(), map[string]any{"roles": nil, "tenant": ""})}, &writv1.Principal{User: "ann"}},
		"a known workload's certificate": {
			evidence{Connection: certificate(desk)},
			&writv1.Principal{Workload: desk, Tenant: "acme", Roles: []string{"agent", "planner"}},
		},
		"a certificate of a workload nothing is known of": {
			evidence{Connection: certificate("spiffe://example.org/x")},
			&writv1.Principal{Workload: "spiffe://example.org/x"},
		},
		"the uid of a workload": {
			evidence{Connection: identity.UnixPeer{UID: deskUID}},
			&writv1.Principal{Workload: desk, Tenant: "acme", Roles: []string{"agent", "planner"}},
		},
		"a workload and a user of its tenant": {
			evidence{Connection: identity.UnixPeer{UID: deskUID}, Authorization: token(good(), nil)},
			&writv1.Principal{Workload: desk, User: "ann", Tenant: "acme", Roles: []string{"agent", "planner", "support"}},
		},
		"a workload of no tenant and a user of one": {
			evidence{Connection: certificate("spiffe://example.org/night"), Authorization: token(good(), map[string]any{"tenant": "zeta"})},
			&writv1.Principal{Workload: "spiffe://example.org/night", User: "ann", Tenant: "zeta", Roles: []string{"agent", "support"}},
		},
		"a certificate without a URI, and a token": {
			evidence{Connection: certificate(), Authorization: token(good(), nil)}, ann,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, refusal := v.Principal(tc.evidence.Connection, tc.evidence.Authorization)
			if refusal != nil {
				t.Fatalf("refused: %v (%v)", refusal, refusal.Unwrap())
			}
			if diff := cmp.Diff(tc.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("principal (-want +got):\n%s", diff)
			}
		})
	}
}

func TestATokenThatDoesNotVerifyIsRefused(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	valid := good().sign(t, with(nil))
	parts := strings.Split(valid, ".")
	hmac := signing{algorithm: jose.HS256, key: []byte(keyring.ed.Public().(ed25519.PublicKey)), id: "d"}
	for name, authorization := range map[string][]string{
		"two headers":                     {"Bearer " + valid, "Bearer " + valid},
		"another scheme":                  {"Basic " + valid},
		"no scheme":                       {valid},
		"an empty header":                 {""},
		"a scheme alone":                  {"Bearer "},
		"not a token":                     {"Bearer x.y.z"},
		"a token over the limit":          {"Bearer " + strings.Repeat("a", 16<<10+1)},
		"the algorithm none":              {"Bearer eyJhbGciOiJub25lIn0." + parts[1] + "."},
		"the public key as an HMAC key":   {"Bearer " + hmac.sign(t, with(nil))},
		"another issuer's key":            {"Bearer " + signing{algorithm: jose.EdDSA, key: keyring.foreign, id: "d"}.sign(t, with(nil))},
		"an unknown kid":                  {"Bearer " + signing{algorithm: jose.EdDSA, key: keyring.ed, id: "x"}.sign(t, with(nil))},
		"a kid of another algorithm":      {"Bearer " + signing{algorithm: jose.EdDSA, key: keyring.ed, id: "e"}.sign(t, with(nil))},
		"an algorithm that is not listed": {"Bearer " + signing{algorithm: jose.PS256, key: keyring.rsa, id: "r"}.sign(t, with(nil))},
		"a token of another type":         {"Bearer " + signing{algorithm: jose.EdDSA, key: keyring.ed, id: "d", typ: "logout+jwt"}.sign(t, with(nil))},
		"a payload of another token":      {"Bearer " + parts[0] + "." + strings.Split(good().sign(t, with(map[string]any{"sub": "eve"})), ".")[1] + "." + parts[2]},
		"claims that are no object":       {"Bearer " + good().sign(t, `[1]`)},
		"claims that are null":            {"Bearer " + good().sign(t, `null`)},
		"claims with trailing data":       {"Bearer " + good().sign(t, with(nil)+"{}")},
		"a claim twice":                   {"Bearer " + good().sign(t, strings.Replace(with(nil), `{`, `{"sub":"eve",`, 1))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, v, evidence{Authorization: authorization}, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID)
		})
	}
}

func TestClaimsThatAreWrongAreRefused(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	many := make([]string, 65)
	for i := range many {
		many[i] = "r" + strings.Repeat("x", i)
	}
	for name, changes := range map[string]map[string]any{
		"another issuer":             {"iss": "https://issuer.example/"},
		"no issuer":                  {"iss": nil},
		"another audience":           {"aud": "other"},
		"no audience":                {"aud": nil},
		"an empty list of audiences": {"aud": []string{}},
		"no expiry":                  {"exp": nil},
		"expired":                    {"exp": now.Unix() - 30},
		"an expiry in words":         {"exp": "never"},
		"an expiry beyond all dates": {"exp": 1e300},
		"an expiry before all dates": {"exp": -1},
		"not yet valid":              {"nbf": now.Unix() + 31},
		"from the future":            {"iat": now.Unix() + 31},
		"no user":                    {"sub": nil},
		"an empty user":              {"sub": ""},
		"a user that is a number":    {"sub": 7},
		"a user over the limit":      {"sub": strings.Repeat("u", 257)},
		"a user with a newline":      {"sub": "ann\nroot"},
		"roles in one string":        {"roles": "support agent"},
		"a role that is a number":    {"roles": []any{"support", 7}},
		"an empty role":              {"roles": []string{""}},
		"too many roles":             {"roles": many},
		"a tenant that is a list":    {"tenant": []string{"acme"}},
		"a tenant over the limit":    {"tenant": strings.Repeat("t", 129)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := evidence{Authorization: []string{"Bearer " + good().sign(t, with(changes))}}
			checkRefused(t, v, e, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID)
		})
	}
}

func TestAConnectionThatProvesNothingIsNotAuthenticated(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	unverified := certificate(desk)
	unverified.State.VerifiedChains = nil
	authority := certificate(desk)
	authority.State.PeerCertificates[0].IsCA = true
	for name, connection := range map[string]credentials.AuthInfo{
		"nothing":                       nil,
		"a uid of no workload":          identity.UnixPeer{UID: deskUID + 1},
		"uid 0":                         identity.UnixPeer{},
		"a certificate without a URI":   certificate(),
		"a certificate with two URIs":   certificate(desk, "spiffe://example.org/night"),
		"an unverified certificate":     unverified,
		"an authority's certificate":    authority,
		"a URI of another scheme":       certificate("https://example.org/desk"),
		"a SPIFFE ID without a path":    certificate("spiffe://example.org"),
		"a SPIFFE ID with a query":      certificate(desk + "?x"),
		"a SPIFFE ID with dot segments": certificate("spiffe://example.org/x/../desk"),
		"a SPIFFE ID with a percent":    certificate("spiffe://example.org/de%73k"),
		"a SPIFFE ID in capitals":       certificate("spiffe://EXAMPLE.org/desk"),
		"a SPIFFE ID with a user":       certificate("spiffe://u@example.org/desk"),
		"a SPIFFE ID with a port":       certificate("spiffe://example.org:1/desk"),
		"a SPIFFE ID over the limit":    certificate(desk + "/" + strings.Repeat("x", 2048)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, v, evidence{Connection: connection}, writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED)
		})
	}
}

func TestAWorkloadDoesNotExcuseABadToken(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	other := "Bearer " + good().sign(t, with(map[string]any{"tenant": "zeta"}))
	for name, authorization := range map[string]string{
		"a token that is none":      "Bearer x",
		"a token of another tenant": other,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := evidence{Connection: certificate(desk), Authorization: []string{authorization}}
			checkRefused(t, v, e, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID)
		})
	}
}

func TestWithoutAnIssuerEveryTokenIsRefused(t *testing.T) {
	t.Parallel()
	v, err := identity.New(identity.Options{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	e := evidence{Authorization: []string{"Bearer " + good().sign(t, with(nil))}}
	checkRefused(t, v, e, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID)
}

func checkRefused(t *testing.T, v *identity.Verifier, e evidence, want writv1.Reason) {
	t.Helper()
	p, refusal := v.Principal(e.Connection, e.Authorization)
	if refusal == nil {
		t.Fatalf("principal %v, want %s", p, want)
	}
	if refusal.Reason != want || p != nil {
		t.Errorf("refused with %v and principal %v, want %s alone", refusal, p, want)
	}
	for _, header := range e.Authorization {
		if _, token, _ := strings.Cut(header, " "); token != "" && strings.Contains(refusal.Message, token) {
			t.Errorf("the refusal %q holds the token", refusal.Message)
		}
	}
}

func TestKeysAreReadAgainWhenTheirFileChanges(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "jwks.json")
	writeKeys(t, file, keySet())
	clock := now
	v, err := identity.New(identity.Options{Config: config(file), Clock: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, key crypto.Signer, want bool) {
		t.Helper()
		token := signing{algorithm: jose.EdDSA, key: key, id: "d"}.sign(t, with(map[string]any{"exp": now.Unix() + 600}))
		_, refusal := v.Principal(nil, []string{"Bearer " + token})
		if (refusal == nil) != want {
			t.Errorf("%s: refusal %v, want accepted %v", when, refusal, want)
		}
	}
	check("at first", keyring.ed, true)
	writeKeys(t, file, []jose.JSONWebKey{{KeyID: "d", Key: keyring.foreign.Public()}})
	check("before the file is looked at again", keyring.ed, true)
	clock = clock.Add(10 * time.Second)
	check("the old key after the change", keyring.ed, false)
	check("the new key after the change", keyring.foreign, true)
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(10 * time.Second)
	check("the last good key when the file is broken", keyring.foreign, true)
}

func TestATokenWithoutAKidIsRefusedWhereTwoKeysFit(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "jwks.json")
	writeKeys(t, file, append(keySet(), jose.JSONWebKey{KeyID: "d2", Key: keyring.foreign.Public()}))
	v, err := identity.New(identity.Options{Config: config(file), Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	token := signing{algorithm: jose.EdDSA, key: keyring.ed}.sign(t, with(nil))
	checkRefused(t, v, evidence{Authorization: []string{"Bearer " + token}}, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID)
}

func TestAConfigurationThatCannotVerifyIsRefused(t *testing.T) {
	t.Parallel()
	public := func(keys ...jose.JSONWebKey) string {
		return string(must(json.Marshal(jose.JSONWebKeySet{Keys: keys})))
	}
	short := must(rsa.GenerateKey(rand.Reader, 1024))
	for name, tc := range map[string]struct{ file, want string }{
		"no file of keys":     {"", "no such file"},
		"not a key set":       {"[]", "not a JSON Web Key Set"},
		"no key":              {`{"keys":[]}`, "no key"},
		"a secret key":        {public(jose.JSONWebKey{KeyID: "d", Key: keyring.ed}), "a secret key"},
		"a symmetric key":     {`{"keys":[{"kty":"oct","k":"AAAA"}]}`, "a secret key"},
		"two keys of one kid": {public(jose.JSONWebKey{Key: keyring.ed.Public()}, jose.JSONWebKey{Key: keyring.foreign.Public()}), "same kid"},
		"a short RSA key":     {public(jose.JSONWebKey{Key: short.Public()}), "no key"},
		"an unknown kind":     {`{"keys":[{"kty":"AKP","pub":"AAAA"}]}`, "no key"},
		"a file over a limit": {`{"keys":[` + strings.Repeat(" ", 1<<20) + `]}`, "more than"},
		"a member twice":      {`{"keys":[],"keys":[]}`, "duplicate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "jwks.json")
			if tc.file != "" {
				if err := os.WriteFile(file, []byte(tc.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := identity.New(identity.Options{Config: config(file), Clock: func() time.Time { return now }})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New: %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestAWorkloadIsConfiguredOnce(t *testing.T) {
	t.Parallel()
	uid := uint32(1)
	for name, workloads := range map[string][]*writv1.WorkloadConfig{
		"a SPIFFE ID twice":     {{SpiffeId: desk}, {SpiffeId: desk}},
		"a uid twice":           {{SpiffeId: desk, Uid: &uid}, {SpiffeId: desk + "2", Uid: &uid}},
		"a SPIFFE ID that none": {{SpiffeId: "spiffe://"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := identity.New(identity.Options{Config: &writv1.IdentityConfig{Workloads: workloads}}); err == nil {
				t.Error("New took it")
			}
		})
	}
}

func FuzzNoTokenThatWeDidNotSignNamesAnybody(f *testing.F) {
	v := newVerifier(f)
	f.Add("Bearer " + signing{algorithm: jose.EdDSA, key: keyring.foreign, id: "d"}.sign(f, with(nil)))
	f.Add("Bearer eyJhbGciOiJub25lIn0.e30.")
	f.Add("Bearer eyJhbGciOiJFZERTQSJ9.e30.AAAA")
	f.Add("Basic eDp5")
	f.Fuzz(func(t *testing.T, authorization string) {
		if p, refusal := v.Principal(nil, []string{authorization}); refusal == nil {
			t.Errorf("%q names %v", authorization, p)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	f.Add(must(json.Marshal(jose.JSONWebKeySet{Keys: keySet()})))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"","e":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "jwks.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := identity.New(identity.Options{Config: config(file), Clock: func() time.Time { return now }})
		if (v == nil) == (err == nil) {
			t.Errorf("New = %v, %v", v, err)
		}
	})
}
