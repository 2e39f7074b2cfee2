// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// The headers of a message.
const (
	// HeaderID has the message's id, the same in every attempt.
	HeaderID = "Webhook-Id"
	// HeaderTimestamp has the time of the attempt in seconds since the Unix epoch.
	HeaderTimestamp = "Webhook-Timestamp"
	// HeaderSignature has signatures, separated by spaces.
	HeaderSignature = "Webhook-Signature"
)

// secretPrefix is that of a secret in text, leastSecret and mostSecret how many bytes
// it has: 24 to 64, as the specification says.
const (
	secretPrefix = "whsec_"
	leastSecret  = 24
	mostSecret   = 64
)

// tolerance is how far the clocks of sender and receiver may be apart.
const tolerance = 5 * time.Minute

var (
	// ErrSecret is returned for a file that holds no secret.
	ErrSecret = errors.New(`a webhook's secret is "whsec_" and 24 to 64 bytes in base64`)
	// ErrSignature is returned for a message that was not signed with the secret.
	ErrSignature = errors.New("the message is not signed with the secret, or it is too old")
)

// ReadSecret reads a secret from a file: "whsec_" and 24 to 64 bytes in base64.
func ReadSecret(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read a webhook's secret: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(file, 4096))
	if err != nil {
		return nil, fmt.Errorf("read a webhook's secret: %w", err)
	}
	return ParseSecret(strings.TrimSpace(string(text)))
}

// ParseSecret reads a secret from its text.
func ParseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return nil, ErrSecret
	}
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(secret) < leastSecret || len(secret) > mostSecret {
		return nil, ErrSecret
	}
	return secret, nil
}

// Sign returns the signature of a message at the time of an attempt: HMAC-SHA-256
// over id, time and body, joined with dots.
func Sign(secret []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Verify says whether a message that was received bears a signature under the secret
// and is not older or newer than five minutes. The receiver MUST also pass over an id
// that it has seen.
func Verify(secret []byte, header http.Header, body []byte, now time.Time) error {
	seconds, err := strconv.ParseInt(header.Get(HeaderTimestamp), 10, 64)
	if err != nil {
		return ErrSignature
	}
	at := time.Unix(seconds, 0)
	if now.Sub(at).Abs() > tolerance {
		return ErrSignature
	}
	want := Sign(secret, header.Get(HeaderID), at, body)
	for signature := range strings.FieldsSeq(header.Get(HeaderSignature)) {
		if hmac.Equal([]byte(signature), []byte(want)) {
			return nil
		}
	}
	return ErrSignature
}
