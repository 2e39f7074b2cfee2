// SPDX-License-Identifier: Apache-2.0

// Package canonical writes and reads protobuf messages in the one form in which
// they are hashed, signed and stored.
//
// The canonical bytes of a message are its fields in ascending order of number,
// each once; no field without presence at its default; no unknown field and no
// extension; the shortest varints; packable scalars packed; one NaN;
// map entries in ascending order of key, key and value both written. One message has one form,
// and [Unmarshal] takes no other, so that two readers of a digest cannot read
// two things out of it.
//
// The package has an encoder of its own: the order in which proto.Marshal writes
// is not a promise of that module, not even with Deterministic. Where what it wrote
// is canonical all the same, which is looked at each time, it is taken, for it is
// made four times as fast. The package does not
// validate (protovalidate does), and has no groups, which proto3 does not have.
//
//	b, err := canonical.Marshal(record)
//	leaf := sha256.Sum256(append([]byte{0}, b...))
package canonical

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// ErrNotCanonical is wrapped by every error that says that bytes are not the
// canonical form of a message, or that a message has none.
var ErrNotCanonical = errors.New("not canonical")

// maxDepth bounds how deep messages nest, for writer and reader alike. It is
// well below the 10,000 of the protobuf module: records nest 6 deep.
const maxDepth = 64

// Marshal returns the canonical bytes of m.
func Marshal(m proto.Message) ([]byte, error) {
	return Append(nil, m)
}

// Append appends the canonical bytes of m to dst. On an error dst is returned as
// it was.
func Append(dst []byte, m proto.Message) ([]byte, error) {
	if m == nil {
		return dst, nil
	}
	r := m.ProtoReflect()
	if out, ok := appendGenerated(dst, m, planOf(r)); ok {
		return out, nil
	}
	out, err := appendMessage(dst, r, planOf(r), maxDepth)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", r.Descriptor().FullName(), err)
	}
	return out, nil
}

// Unmarshal reads b, which MUST be the canonical form, into m. Anything else is
// refused with an error that wraps ErrNotCanonical, and m is then not changed.
func Unmarshal(b []byte, m proto.Message) error {
	if err := Check(b, m); err != nil {
		return err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("decode %s: %w: %w", m.ProtoReflect().Descriptor().FullName(), ErrNotCanonical, err)
	}
	return nil
}

// Check says whether b is the canonical form of some message of m's type. It
// neither reads nor changes m.
func Check(b []byte, m proto.Message) error {
	r := m.ProtoReflect()
	if err := checkMessage(b, planOf(r), maxDepth); err != nil {
		return fmt.Errorf("decode %s: %w", r.Descriptor().FullName(), err)
	}
	return nil
}
