// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	// maxToken bounds a token, at twice what proxies commonly allow a header.
	maxToken = 16 << 10
	// skew is how far the issuer's clock may be off.
	skew = 30 * time.Second
	// maxUser, maxName bound what becomes of claims, as Principal's rules do.
	maxUser = 256
	maxName = 128
	// maxAudiences bounds the audiences that a token may list.
	maxAudiences = 64
)

// algorithms are those a token may be signed with: no symmetric one, and not
// "none".
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}

// tokens verifies the tokens of one issuer.
type tokens struct {
	issuer                 string
	audiences              []string
	user, rolesAre, tenant string // names of claims
	keys                   *keys
	clock                  func() time.Time
}

// claims are what a verified token says.
type claims struct {
	user   string
	roles  []string
	tenant string
}

func newTokens(config *writv1.JwtConfig, keys *keys, clock func() time.Time) *tokens {
	return &tokens{
		issuer:    config.GetIssuer(),
		audiences: config.GetAudiences(),
		user:      orElse(config.GetUserClaim(), "sub"),
		rolesAre:  orElse(config.GetRolesClaim(), "roles"),
		tenant:    orElse(config.GetTenantClaim(), "tenant"),
		keys:      keys,
		clock:     clock,
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// bearer returns the token of a request's authorization values (RFC 6750, section
// 2.1); empty where there is none.
func bearer(values []string) (string, *reasons.Error) {
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", invalidToken(errors.New("more than one authorization header"))
	}
	scheme, token, found := strings.Cut(values[0], " ")
	if !found || !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", invalidToken(errors.New("the authorization header is not a bearer token"))
	}
	if len(token) > maxToken {
		return "", invalidToken(fmt.Errorf("the token has more than %d bytes", maxToken))
	}
	return token, nil
}

// verify returns what a token says once its signature, issuer, audience and times
// are checked (RFC 8725 is the list of what goes wrong otherwise).
func (t *tokens) verify(token string) (*claims, error) {
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, fmt.Errorf("parse the token: %w", err)
	}
	header := jws.Signatures[0].Header
	if err := checkType(header.ExtraHeaders[jose.HeaderType]); err != nil {
		return nil, err
	}
	key, err := t.keys.find(header.KeyID, jose.SignatureAlgorithm(header.Algorithm))
	if err != nil {
		return nil, err
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, fmt.Errorf("verify the token: %w", err)
	}
	members, err := object(payload)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.checkParties(members), t.checkTimes(members)); err != nil {
		return nil, err
	}
	return t.read(members)
}

// checkType refuses tokens that the issuer made for something else, such as a
// logout token (RFC 8725, section 3.11).
func checkType(typ any) error {
	if typ == nil {
		return nil
	}
	name, _ := typ.(string)
	name = strings.TrimPrefix(strings.ToLower(name), "application/")
	if name != "jwt" && name != "at+jwt" {
		return errors.New("the token is of another type")
	}
	return nil
}

// object reads a JSON object once: no duplicate names, valid UTF-8, no trailing data.
func object(payload []byte) (map[string]jsontext.Value, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(payload, &members); err != nil {
		return nil, fmt.Errorf("read the claims: %w", err)
	}
	if members == nil {
		return nil, errors.New("the claims are null")
	}
	return members, nil
}

func (t *tokens) checkParties(members map[string]jsontext.Value) error {
	issuer, err := text(members, "iss", math.MaxInt)
	if err != nil {
		return err
	}
	if issuer != t.issuer {
		return errors.New("the token is of another issuer")
	}
	audiences, err := texts(members, "aud", maxAudiences, math.MaxInt)
	if err != nil {
		audience, err := text(members, "aud", math.MaxInt)
		if err != nil {
			return err
		}
		audiences = []string{audience}
	}
	for _, audience := range audiences {
		if slices.Contains(t.audiences, audience) {
			return nil
		}
	}
	return errors.New("the token is for another audience")
}

func (t *tokens) checkTimes(members map[string]jsontext.Value) error {
	now := t.clock()
	expires, found, err := instant(members, "exp")
	if err != nil {
		return err
	}
	if !found {
		return errors.New("the token never expires")
	}
	if !now.Add(-skew).Before(expires) {
		return errors.New("the token has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		begins, found, err := instant(members, name)
		if err != nil {
			return err
		}
		if found && now.Add(skew).Before(begins) {
			return errors.New("the token is not valid yet")
		}
	}
	return nil
}

func (t *tokens) read(members map[string]jsontext.Value) (*claims, error) {
	user, err := text(members, t.user, maxUser)
	if err != nil {
		return nil, err
	}
	c := &claims{user: user}
	if _, found := members[t.rolesAre]; found {
		if c.roles, err = texts(members, t.rolesAre, maxRoles, maxName); err != nil {
			return nil, err
		}
	}
	if value, found := members[t.tenant]; found && string(value) != `""` {
		if c.tenant, err = text(members, t.tenant, maxName); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// text returns the claim that is a string of 1 to limit bytes without control
// characters.
func text(members map[string]jsontext.Value, name string, limit int) (string, error) {
	var s string
	if members[name].Kind() != '"' {
		return "", fmt.Errorf("claim %q is missing or not a string", name)
	}
	if err := json.Unmarshal(members[name], &s); err != nil {
		return "", fmt.Errorf("claim %q: %w", name, err)
	}
	return s, checkText(name, s, limit)
}

// texts returns the claim that is a list of at most count such strings.
func texts(members map[string]jsontext.Value, name string, count, limit int) ([]string, error) {
	if members[name].Kind() != '[' {
		return nil, fmt.Errorf("claim %q is missing or not a list", name)
	}
	var values []jsontext.Value
	if err := json.Unmarshal(members[name], &values); err != nil {
		return nil, fmt.Errorf("claim %q: %w", name, err)
	}
	if len(values) > count {
		return nil, fmt.Errorf("claim %q has more than %d elements", name, count)
	}
	list := make([]string, 0, len(values))
	for _, value := range values {
		s, err := text(map[string]jsontext.Value{name: value}, name, limit)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func checkText(name, s string, limit int) error {
	if s == "" || len(s) > limit || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("claim %q is empty, too long, or not plain text", name)
	}
	return nil
}

// instant returns the claim that is a NumericDate (RFC 7519, section 2).
func instant(members map[string]jsontext.Value, name string) (time.Time, bool, error) {
	value, found := members[name]
	if !found {
		return time.Time{}, false, nil
	}
	var seconds float64
	if err := json.Unmarshal(value, &seconds); err != nil || value.Kind() != '0' {
		return time.Time{}, false, fmt.Errorf("claim %q is not a date", name)
	}
	// 253402300800 is the year 10000: nothing beyond is a date, and conversion to
	// an integer of what does not fit one is undefined.
	if seconds < 0 || seconds >= 253402300800 {
		return time.Time{}, false, fmt.Errorf("claim %q is out of range", name)
	}
	return time.Unix(int64(seconds), 0), true, nil
}
