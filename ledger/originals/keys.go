// SPDX-License-Identifier: Apache-2.0

package originals

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	kem = hpke.DHKEM(ecdh.X25519())
	kdf = hpke.HKDFSHA256()
)

const (
	// MostKeyBytes bounds a text of public keys.
	MostKeyBytes = 16 << 20
	// maxTenant bounds a tenant's name, as Record.tenant does.
	maxTenant = 128
)

// ErrKeys says that a text is none of public keys.
var ErrKeys = errors.New("not a list of public keys")

// Day is a day (UTC), such as "2026-01-31". Days compare as their texts do.
type Day string

// DayOf returns the day that a time is in.
func DayOf(at time.Time) Day { return Day(at.UTC().Format(time.DateOnly)) }

// ParseDay reads a day.
func ParseDay(text string) (Day, error) {
	if _, err := time.Parse(time.DateOnly, text); err != nil {
		return "", fmt.Errorf("%q is no day, such as 2026-01-31", text)
	}
	return Day(text), nil
}

// Add returns the day so many days later.
func (d Day) Add(days int) Day {
	at, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		return d
	}
	return DayOf(at.AddDate(0, 0, days))
}

// PublicKey is the public half of a tenant's key of a day.
type PublicKey struct {
	// Tenant is whose; empty is those without a tenant.
	Tenant string
	Day    Day
	// Bytes is the X25519 public key.
	Bytes [32]byte
}

// ID names the key: SHA-256 of it.
func (k *PublicKey) ID() [32]byte { return sha256.Sum256(k.Bytes[:]) }

// String returns the line that [ParseKeys] reads: the day, the key in base64, and the
// tenant as a quoted Go string.
func (k *PublicKey) String() string {
	return string(k.Day) + " " + base64.StdEncoding.EncodeToString(k.Bytes[:]) + " " + strconv.Quote(k.Tenant)
}

// Generate makes a key pair at random.
func Generate() (public [32]byte, private hpke.PrivateKey, err error) {
	if private, err = kem.GenerateKey(); err != nil {
		return public, nil, fmt.Errorf("make a day's key: %w", err)
	}
	copy(public[:], private.PublicKey().Bytes())
	return public, private, nil
}

// ParsePrivate reads a private key, which must belong to the public one.
func ParsePrivate(raw []byte, public [32]byte) (hpke.PrivateKey, error) {
	private, err := kem.NewPrivateKey(raw)
	if err != nil || !bytes.Equal(private.PublicKey().Bytes(), public[:]) {
		return nil, errors.New("a day's private key is not that of its public key")
	}
	return private, nil
}

// of is a tenant and a day.
type of struct {
	tenant string
	day    Day
}

// Keys are public keys, one a tenant and day. They do not change.
type Keys struct{ keys map[of]PublicKey }

// Len is how many there are.
func (k *Keys) Len() int { return len(k.keys) }

// Days returns for how many days from one on, without a gap, a tenant has a key.
func (k *Keys) Days(tenant string, from Day) int {
	for days := 0; ; days++ {
		if _, ok := k.keys[of{tenant, from.Add(days)}]; !ok {
			return days
		}
	}
}

// Tenants returns the tenants that have a key, in no order.
func (k *Keys) Tenants() []string {
	seen, tenants := make(map[string]bool), []string(nil)
	for key := range k.keys {
		if !seen[key.tenant] {
			seen[key.tenant], tenants = true, append(tenants, key.tenant)
		}
	}
	return tenants
}

// ParseKeys reads public keys, one a line as [PublicKey.String] writes them; empty lines
// and those that begin with # are passed over. A tenant and day has one key.
func ParseKeys(text []byte) (*Keys, error) {
	if len(text) > MostKeyBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrKeys, MostKeyBytes)
	}
	keys := &Keys{keys: make(map[of]PublicKey)}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrKeys, number, err)
		}
		at := of{key.Tenant, key.Day}
		if held, ok := keys.keys[at]; ok && held != key {
			return nil, fmt.Errorf("%w: line %d: another key of tenant %q and %s", ErrKeys, number, key.Tenant, key.Day)
		}
		keys.keys[at] = key
	}
	return keys, nil
}

func parseKey(line string) (PublicKey, error) {
	parts := strings.SplitN(line, " ", 3)
	if len(parts) != 3 {
		return PublicKey{}, errors.New("not a day, a key and a quoted tenant")
	}
	day, err := ParseDay(parts[0])
	if err != nil {
		return PublicKey{}, err
	}
	raw, err := base64.StdEncoding.DecodeString(parts[1])
	if err == nil {
		_, err = kem.NewPublicKey(raw)
	}
	if err != nil || len(raw) != 32 {
		return PublicKey{}, errors.New("not an X25519 public key in base64")
	}
	tenant, err := strconv.Unquote(parts[2])
	if err != nil || !utf8.ValidString(tenant) || utf8.RuneCountInString(tenant) > maxTenant {
		return PublicKey{}, fmt.Errorf("the tenant is no quoted name of at most %d characters", maxTenant)
	}
	return PublicKey{Tenant: tenant, Day: day, Bytes: [32]byte(raw)}, nil
}
