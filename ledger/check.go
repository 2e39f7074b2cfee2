// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// ErrRecord is wrapped by every error about bytes that are not the record that they
// should be.
var ErrRecord = errors.New("not a valid record")

// CheckRecord reads the canonical bytes of a record, whose body must be canonical
// too, and holds it against the ledger and the place that it should belong to. It
// is what collector and verifier alike take a record by.
func CheckRecord(raw []byte, logID [32]byte, index uint64) (*writv1.Record, error) {
	if len(raw) > MaxRecordBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrRecord, len(raw))
	}
	r := &writv1.Record{}
	if err := canonical.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	switch {
	case string(r.GetLogId()) != string(logID[:]):
		return nil, fmt.Errorf("%w: it belongs to another ledger", ErrRecord)
	case r.GetIndex() != index:
		return nil, fmt.Errorf("%w: its index is %d, want %d", ErrRecord, r.GetIndex(), index)
	case r.GetEpoch() < 1:
		return nil, fmt.Errorf("%w: no epoch", ErrRecord)
	case bodyOf(r.GetKind()) == nil:
		return nil, fmt.Errorf("%w: kind %d", ErrRecord, r.GetKind())
	case utf8.RuneCountInString(r.GetTenant()) > 128 || len(r.GetDecisionId()) > 16 || len(r.GetBundleDigest()) > 32:
		return nil, fmt.Errorf("%w: tenant, decision id or bundle digest too long", ErrRecord)
	}
	if err := canonical.Check(r.GetBody(), bodyOf(r.GetKind())); err != nil {
		return nil, fmt.Errorf("%w: body: %w", ErrRecord, err)
	}
	if err := checkSealed(r.GetSealed()); err != nil {
		return nil, err
	}
	return r, checkCommitments(r.GetCommitments())
}

// checkSealed holds what is sealed against the bounds of originals.proto.
func checkSealed(s *writv1.SealedOriginals) error {
	if len(s.GetDay()) > len(time.DateOnly) || len(s.GetKeyId()) > 32 || len(s.GetWrappedKey()) > 128 || len(s.GetCiphertext()) > 20480 {
		return fmt.Errorf("%w: sealed originals of another form", ErrRecord)
	}
	return nil
}

func checkCommitments(cs []*writv1.Commitment) error {
	if len(cs) > 256 {
		return fmt.Errorf("%w: %d commitments", ErrRecord, len(cs))
	}
	last := ""
	for _, c := range cs {
		if c.GetPath() <= last || utf8.RuneCountInString(c.GetPath()) > 1024 || len(c.GetDigest()) != 32 {
			return fmt.Errorf("%w: commitments out of order or of another form", ErrRecord)
		}
		last = c.GetPath()
	}
	return nil
}

// Body reads the body of a record: the message that belongs to its kind.
func Body(r *writv1.Record) (proto.Message, error) {
	want := bodyOf(r.GetKind())
	if want == nil {
		return nil, fmt.Errorf("%w: kind %d", ErrRecord, r.GetKind())
	}
	m := want.ProtoReflect().New().Interface()
	if err := canonical.Unmarshal(r.GetBody(), m); err != nil {
		return nil, fmt.Errorf("%w: body: %w", ErrRecord, err)
	}
	return m, nil
}
