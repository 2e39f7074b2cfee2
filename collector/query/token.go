// SPDX-License-Identifier: Apache-2.0

package query

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	tokenDigest = 16
	tokenBytes  = 8 + tokenDigest
	tokenLabel  = "writ/page/v1"
)

// cursor gives out and takes page tokens: a place, with a digest over it, the filter and
// what is read. A token gives no right to anything, so the digest has no key: it is there
// so that a token is used for what it was given out for, and nothing is made up of one
// that was cut or changed.
type cursor struct{ sum [sha256.Size]byte }

// newCursor returns the cursor of a filter over a source.
func newCursor(source string, filter *writv1.RecordFilter) (cursor, error) {
	f := &writv1.RecordFilter{}
	if filter != nil {
		f, _ = proto.Clone(filter).(*writv1.RecordFilter)
	}
	slices.Sort(f.Kinds)
	f.Kinds = slices.Compact(f.Kinds)
	text, err := canonical.Marshal(f)
	if err != nil {
		return cursor{}, fmt.Errorf("%w: filter: %w", ErrInvalid, err)
	}
	h := sha256.New()
	h.Write([]byte(tokenLabel))
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(source))))
	h.Write([]byte(source))
	h.Write(text)
	return cursor{sum: [sha256.Size]byte(h.Sum(nil))}, nil
}

// token returns the token of a place.
func (c cursor) token(place uint64) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, tokenBytes), place)
	return base64.RawURLEncoding.EncodeToString(append(b, c.digest(b)...))
}

func (c cursor) digest(place []byte) []byte {
	sum := sha256.Sum256(append(c.sum[:], place...))
	return sum[:tokenDigest]
}

// place reads a token; of none it is 0.
func (c cursor) place(token string) (uint64, error) {
	if token == "" {
		return 0, nil
	}
	if len(token) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return 0, fmt.Errorf("%w: page token of a wrong length", ErrInvalid)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenBytes {
		return 0, fmt.Errorf("%w: page token is no token", ErrInvalid)
	}
	place := binary.BigEndian.Uint64(b)
	if place == 0 || string(c.digest(b[:8])) != string(b[8:]) {
		return 0, fmt.Errorf("%w: page token was not given out for this filter", ErrInvalid)
	}
	return place, nil
}
