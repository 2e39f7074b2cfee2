// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const (
	commitLabel = "writ/commit/v1"
	saltLabel   = "writ/salt/v1"
	recordLabel = "writ/record-salt/v1"
)

// ErrDisclosure says that a value is not the one that was committed to.
var ErrDisclosure = errors.New("value is not the one committed to")

// Salt derives the salt of one path of one record: HKDF-SHA-256 over the record's
// salt, which is HMAC-SHA-256(commit key, "writ/record-salt/v1" || log id ||
// u64le index). Whoever has the ledger's commit.key can so prove every value of the
// ledger, one at a time, without proving another; without it a value cannot be
// guessed from its commitment. Destroying commit.key closes all of them.
func Salt(commitKey []byte, logID [32]byte, index uint64, path string) ([]byte, error) {
	m := hmac.New(sha256.New, commitKey)
	m.Write([]byte(recordLabel))
	m.Write(logID[:])
	m.Write(binary.LittleEndian.AppendUint64(nil, index))
	return PathSalt(m.Sum(nil), path)
}

// PathSalt derives the salt of one path from a record's salt.
func PathSalt(recordSalt []byte, path string) ([]byte, error) {
	return hkdf.Key(sha256.New, recordSalt, nil, saltLabel+path, 32)
}

// Commit computes the commitment to a value: HMAC-SHA-256 under the salt over
// "writ/commit/v1", log id, path and value, each after its length as a u64le.
func Commit(salt []byte, logID [32]byte, path string, value []byte) []byte {
	m := hmac.New(sha256.New, salt)
	for _, part := range [][]byte{[]byte(commitLabel), logID[:], []byte(path), value} {
		m.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(part))))
		m.Write(part)
	}
	return m.Sum(nil)
}

// VerifyDisclosure says whether value, whose salt was disclosed, is what the record
// holds a commitment to under path.
func VerifyDisclosure(r *writv1.Record, path string, value, salt []byte) error {
	if len(r.GetLogId()) != 32 {
		return fmt.Errorf("%w: the record has no log id", ErrDisclosure)
	}
	for _, c := range r.GetCommitments() {
		if c.GetPath() != path {
			continue
		}
		if hmac.Equal(c.GetDigest(), Commit(salt, [32]byte(r.GetLogId()), path, value)) {
			return nil
		}
		return fmt.Errorf("%w: %s", ErrDisclosure, path)
	}
	return fmt.Errorf("%w: the record has no commitment for %s", ErrDisclosure, path)
}

// commitment computes the commitment to one value of the record at index, unless its
// caller has.
func (id *identity) commitment(index uint64, s Sensitive) ([]byte, error) {
	if s.Digest != nil {
		return s.Digest, nil
	}
	salt, err := Salt(id.commitKey, id.logID, index, s.Path)
	if err != nil {
		return nil, fmt.Errorf("derive salt: %w", err)
	}
	return Commit(salt, id.logID, s.Path, s.Value), nil
}

// Disclose returns the salt that proves the value of a path in the record at index.
// It MUST be given only to those who may see that value.
func (l *Ledger) Disclose(index uint64, path string) ([]byte, error) {
	return Salt(l.id.commitKey, l.id.logID, index, path)
}
