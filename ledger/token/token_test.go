// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/token"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	jws     = writv1.DecisionTokenKind_DECISION_TOKEN_KIND_JWS
	receipt = writv1.DecisionTokenKind_DECISION_TOKEN_KIND_RECEIPT
	id      = "000102030405060708090a0b0c0d0e0f"
	body    = `{"amount":42}`
	target  = "/refunds/7?dry=0"
)

// desk is an agent and the verifier of a service behind it.
type desk struct {
	minter   *token.Minter
	ledger   *ledger.Ledger
	key      ed25519.PrivateKey
	verifier *token.Verifier
	now      time.Time
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	dir := t.TempDir()
	l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: "test.example/agent/desk"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(nil) })
	key, err := token.OpenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	minter, err := token.NewMinter(l.Origin(), key)
	if err != nil {
		t.Fatal(err)
	}
	logKey, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, token.JWKSFile))
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.ReadKeySet(text)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{minter: minter, ledger: l, key: key, now: time.Now()}
	d.verifier = &token.Verifier{Audience: "payments", Issuer: l.Origin(), Keys: set, Ledgers: []note.Verifier{logKey}, Clock: func() time.Time { return d.now }}
	return d
}

// mint makes a token for a POST of body to target, as the changes say.
func (d *desk) mint(t testing.TB, kind writv1.DecisionTokenKind, changes ...func(*token.Request, *writv1.DecisionRecord)) string {
	t.Helper()
	r := token.Request{
		Kind: kind, Audience: "payments", Issued: d.now, DecisionID: id, Tool: "payments.issue_refund", Tenant: "acme",
		Subject: "u-1", Digest: token.RequestDigest("payments", "POST", target, []byte(body)),
	}
	record := &writv1.DecisionRecord{
		Tool: r.Tool, Principal: &writv1.Principal{User: "u-1", Workload: "spiffe://w"},
		Decision: &writv1.Decision{Verdict: writv1.Verdict_VERDICT_ALLOW},
	}
	record.TokenLifetime = durationpb.New(token.MaxLifetime)
	for _, change := range changes {
		change(&r, record)
	}
	record.RequestDigest = r.Digest[:]
	decisionID := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	p, err := d.ledger.Append(t.Context(), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: decisionID, Body: record,
	}, writv1.Durability_DURABILITY_PROCESS)
	if err != nil {
		t.Fatal(err)
	}
	r.Position = p
	out, err := d.minter.Mint(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func request(tok string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	r.Header.Set(token.Header, tok)
	return r
}

func TestATokenIsGoodForItsRequestOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range []writv1.DecisionTokenKind{jws, receipt} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			tok := d.mint(t, kind)
			c, err := d.verifier.Verify(request(tok), []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			if c.ID != id || c.Tool != "payments.issue_refund" || c.Tenant != "acme" || c.Subject != "u-1" || c.Audience != "payments" || c.Issuer != d.ledger.Origin() || c.Kind != kind {
				t.Errorf("claims = %+v", c)
			}
			if _, err := d.verifier.Verify(request(tok), []byte(body)); !errors.Is(err, token.ErrUsed) {
				t.Errorf("second use = %v, want ErrUsed", err)
			}
			d.now = d.now.Add(70 * time.Second)
			if _, err := d.verifier.Verify(request(tok), []byte(body)); !errors.Is(err, token.ErrExpired) {
				t.Errorf("use after expiry = %v, want ErrExpired", err)
			}
		})
	}
}

func TestATokenIsValidForItsLifetime(t *testing.T) {
	t.Parallel()
	lasts := func(lifetime time.Duration) func(*token.Request, *writv1.DecisionRecord) {
		return func(r *token.Request, d *writv1.DecisionRecord) {
			r.Lifetime, d.TokenLifetime = lifetime, durationpb.New(lifetime)
		}
	}
	for _, kind := range []writv1.DecisionTokenKind{jws, receipt} {
		for age, want := range map[time.Duration]error{3 * time.Second: nil, 6 * time.Second: token.ErrExpired} {
			d := newDesk(t)
			tok := d.mint(t, kind, lasts(5*time.Second))
			d.now = d.now.Add(age)
			if _, err := d.verifier.Verify(request(tok), []byte(body)); !errors.Is(err, want) {
				t.Errorf("%v of 5 s after %v: %v, want %v", kind, age, err, want)
			}
		}
	}
	for _, lifetime := range []time.Duration{0, token.MaxLifetime + 1} {
		d := newDesk(t)
		tok := d.mint(t, receipt, lasts(lifetime))
		if _, err := d.verifier.Verify(request(tok), []byte(body)); !errors.Is(err, token.ErrExpired) {
			t.Errorf("a receipt whose record gives it %v: %v, want ErrExpired", lifetime, err)
		}
	}
}

func TestATokenIsForNoOtherRequest(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*http.Request)
		body   string
		want   error
	}{
		"another method":                {func(r *http.Request) { r.Method = "PUT" }, body, token.ErrOtherRequest},
		"another path":                  {func(r *http.Request) { r.RequestURI = "/refunds/8?dry=0" }, body, token.ErrOtherRequest},
		"the same path spelt otherwise": {func(r *http.Request) { r.RequestURI = "/refunds/%37?dry=0" }, body, token.ErrOtherRequest},
		"another query":                 {func(r *http.Request) { r.RequestURI = "/refunds/7?dry=1" }, body, token.ErrOtherRequest},
		"no query":                      {func(r *http.Request) { r.RequestURI = "/refunds/7" }, body, token.ErrOtherRequest},
		"the query moved into the path": {func(r *http.Request) { r.RequestURI = "/refunds/7%3Fdry=0" }, body, token.ErrOtherRequest},
		"another body":                  {func(*http.Request) {}, `{"amount":43}`, token.ErrOtherRequest},
		"no body":                       {func(*http.Request) {}, "", token.ErrOtherRequest},
		"no token":                      {func(r *http.Request) { r.Header.Del(token.Header) }, body, token.ErrMissing},
		"two tokens":                    {func(r *http.Request) { r.Header.Add(token.Header, "x") }, body, token.ErrMissing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			for _, kind := range []writv1.DecisionTokenKind{jws, receipt} {
				r := request(d.mint(t, kind))
				tc.change(r)
				if c, err := d.verifier.Verify(r, []byte(tc.body)); !errors.Is(err, tc.want) {
					t.Errorf("%v: Verify = %+v, %v, want %v", kind, c, err, tc.want)
				}
			}
		})
	}
}

func TestTokensThatWereTamperedWithAreRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, kind := range []writv1.DecisionTokenKind{jws, receipt} {
		tok := d.mint(t, kind)
		for i := range len(tok) {
			for _, c := range []byte{'A', 'B', '.', '~'} {
				if tok[i] == c {
					continue
				}
				bad := tok[:i] + string(c) + tok[i+1:]
				if equalBytes(bad, tok) {
					continue // only the spare bits of base64 differ
				}
				if claims, err := d.verifier.Verify(request(bad), []byte(body)); err == nil {
					t.Fatalf("%v with byte %d changed is taken: %+v", kind, i, claims)
				}
			}
			if _, err := d.verifier.Verify(request(tok[:i]), []byte(body)); err == nil {
				t.Fatalf("%v cut after %d bytes is taken", kind, i)
			}
		}
		if _, err := d.verifier.Verify(request(tok+"A"), []byte(body)); err == nil {
			t.Errorf("%v with a byte more is taken", kind)
		}
	}
}

// equalBytes says whether the parts of two tokens decode to the same bytes.
func equalBytes(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		p, err1 := base64.RawURLEncoding.DecodeString(x[i])
		q, err2 := base64.RawURLEncoding.DecodeString(y[i])
		if err1 != nil || err2 != nil || !bytes.Equal(p, q) {
			return false
		}
	}
	return true
}

func TestTokensFromElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	type change = func(*token.Request, *writv1.DecisionRecord)
	deny := func(_ *token.Request, d *writv1.DecisionRecord) {
		d.Decision.Verdict = writv1.Verdict_VERDICT_DENY
	}
	elsewhere := func(r *token.Request, _ *writv1.DecisionRecord) {
		r.Audience, r.Digest = "mail", token.RequestDigest("mail", "POST", target, []byte(body))
	}
	for name, tc := range map[string]struct {
		kind   writv1.DecisionTokenKind
		change change
		verify func(*desk)
		want   error
	}{
		"a jws for another audience":                    {jws, elsewhere, nil, token.ErrOtherRequest},
		"a receipt for another audience":                {receipt, elsewhere, nil, token.ErrOtherRequest},
		"a jws that names another audience":             {jws, func(r *token.Request, _ *writv1.DecisionRecord) { r.Audience = "mail" }, nil, token.ErrOtherRequest},
		"a receipt of a denial":                         {receipt, deny, nil, token.ErrInvalid},
		"a jws of another issuer":                       {jws, nil, func(d *desk) { d.verifier.Issuer = "other" }, token.ErrInvalid},
		"a jws where no key is known":                   {jws, nil, func(d *desk) { d.verifier.Keys = jose.JSONWebKeySet{} }, token.ErrInvalid},
		"a receipt where no ledger is known":            {receipt, nil, func(d *desk) { d.verifier.Ledgers = nil }, token.ErrInvalid},
		"a jws from the future":                         {jws, nil, func(d *desk) { d.now = d.now.Add(-10 * time.Second) }, token.ErrExpired},
		"a receipt from the future":                     {receipt, nil, func(d *desk) { d.now = d.now.Add(-10 * time.Second) }, token.ErrExpired},
		"any token, where the verifier has no audience": {jws, nil, func(d *desk) { d.verifier.Audience = "" }, token.ErrInvalid},
		"a token when no more ids can be kept": {jws, nil, func(d *desk) {
			d.verifier.MaxIDs = 1
			other := d.mintOther()
			if _, err := d.verifier.Verify(request(other), []byte(body)); err != nil {
				panic(err)
			}
		}, token.ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			var changes []change
			if tc.change != nil {
				changes = append(changes, tc.change)
			}
			tok := d.mint(t, tc.kind, changes...)
			if tc.verify != nil {
				tc.verify(d)
			}
			if c, err := d.verifier.Verify(request(tok), []byte(body)); !errors.Is(err, tc.want) {
				t.Errorf("Verify = %+v, %v, want %v", c, err, tc.want)
			}
		})
	}
}

// mintOther makes a token of another decision.
func (d *desk) mintOther() string {
	out, err := d.minter.Mint(token.Request{
		Kind: jws, Audience: "payments", Issued: d.now, DecisionID: strings.Repeat("ab", 16),
		Digest: token.RequestDigest("payments", "POST", target, []byte(body)),
	})
	if err != nil {
		panic(err)
	}
	return out
}

func TestAJWSOfAnotherKindIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	public := d.key.Public().(ed25519.PublicKey)
	kid := token.KeySet(public).Keys[0].KeyID
	digest := token.RequestDigest("payments", "POST", target, []byte(body))
	good := map[string]any{
		"iss": d.ledger.Origin(), "aud": "payments", "jti": id, "iat": d.now.Unix(), "exp": d.now.Unix() + 60,
		"digest": base64.RawURLEncoding.EncodeToString(digest[:]),
	}
	with := func(k string, v any) map[string]any {
		out := map[string]any{}
		for n, x := range good {
			out[n] = x
		}
		out[k] = v
		return out
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		alg    jose.SignatureAlgorithm
		key    any
		typ    jose.ContentType
		claims map[string]any
		ok     bool
	}{
		"the form that is taken":                       {jose.EdDSA, d.key, "writ-decision+jwt", good, true},
		"an access token of the same key":              {jose.EdDSA, d.key, "at+jwt", good, false},
		"signed with the public key as an HMAC secret": {jose.HS256, []byte(public), "writ-decision+jwt", good, false},
		"signed by a stranger under the key's id":      {jose.EdDSA, stranger, "writ-decision+jwt", good, false},
		"valid for 61 s":                               {jose.EdDSA, d.key, "writ-decision+jwt", with("exp", d.now.Unix()+61), false},
		"without an expiry":                            {jose.EdDSA, d.key, "writ-decision+jwt", with("exp", nil), false},
		"for two audiences":                            {jose.EdDSA, d.key, "writ-decision+jwt", with("aud", []string{"payments", "mail"}), false},
		"without an id":                                {jose.EdDSA, d.key, "writ-decision+jwt", with("jti", ""), false},
		"with an id in capitals":                       {jose.EdDSA, d.key, "writ-decision+jwt", with("jti", strings.ToUpper(id)), false},
		"with a digest of 31 bytes":                    {jose.EdDSA, d.key, "writ-decision+jwt", with("digest", base64.RawURLEncoding.EncodeToString(digest[:31])), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := jose.NewSigner(jose.SigningKey{Algorithm: tc.alg, Key: jose.JSONWebKey{Key: tc.key, KeyID: kid}}, (&jose.SignerOptions{}).WithType(tc.typ))
			if err != nil {
				t.Fatal(err)
			}
			tok, err := jwt.Signed(s).Claims(tc.claims).Serialize()
			if err != nil {
				t.Fatal(err)
			}
			v := &token.Verifier{Audience: "payments", Issuer: d.ledger.Origin(), Keys: token.KeySet(public), Clock: func() time.Time { return d.now }}
			if _, err := v.Verify(request(tok), []byte(body)); (err == nil) != tc.ok {
				t.Errorf("Verify = %v, want taken %v", err, tc.ok)
			}
		})
	}
}

func TestOfManyUsesAtOnceOneCounts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	tok := d.mint(t, jws)
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := d.verifier.Verify(request(tok), []byte(body)); err == nil {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 {
		t.Errorf("taken %d times, want once", taken.Load())
	}
}

func TestAClockSetBackDoesNotMakeATokenGoodAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	start := d.now
	tok := d.mint(t, jws)
	if _, err := d.verifier.Verify(request(tok), []byte(body)); err != nil {
		t.Fatal(err)
	}
	d.now = start.Add(61 * time.Second) // the id is forgotten with the next token
	if _, err := d.verifier.Verify(request(d.mintOther()), []byte(body)); err != nil {
		t.Fatal(err)
	}
	d.now = start
	if _, err := d.verifier.Verify(request(tok), []byte(body)); err == nil {
		t.Error("a used token is taken again")
	}
}

func TestAMinterWithoutAKeyMakesReceiptsOnly(t *testing.T) {
	t.Parallel()
	m, err := token.NewMinter("origin", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Mint(token.Request{Kind: jws, Audience: "a", DecisionID: id}); !errors.Is(err, token.ErrNoKey) {
		t.Errorf("Mint = %v, want ErrNoKey", err)
	}
}

func TestTheTokenKeyIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := token.OpenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := token.OpenKey(dir)
	if err != nil || !first.Equal(second) {
		t.Errorf("second OpenKey = another key, %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, token.KeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, token.KeyFile), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := token.OpenKey(dir); err == nil {
		t.Error("a file that is no key is taken for one")
	}
}

func FuzzVerify(f *testing.F) {
	d := newDesk(f)
	f.Add(d.mint(f, jws))
	f.Add(d.mint(f, receipt))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, tok string) {
		if _, err := d.verifier.Verify(request(tok), []byte("another body")); err == nil {
			t.Fatalf("%q is taken for a request it was not made for", tok)
		}
	})
}
