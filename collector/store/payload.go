// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"fmt"

	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/writ-dev/writ/ledger"
)

const (
	// maxRecords bounds a bundle, as ledger_service.proto does.
	maxRecords = 4096
	// maxHead bounds a signed note, as ledger_service.proto does.
	maxHead = 4096
	// maxPayload bounds the records of a bundle, each with its length.
	maxPayload = maxRecords * (4 + ledger.MaxRecordBytes)
)

// packRecords puts each record after its length.
func packRecords(records [][]byte) []byte {
	n := 0
	for _, r := range records {
		n += 4 + len(r)
	}
	out := make([]byte, 0, n)
	for _, r := range records {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(r))) //nolint:gosec // checked: at most MaxRecordBytes
		out = append(out, r...)
	}
	return out
}

// unpackRecords takes them apart again: count records and nothing else. On an error
// it returns the records before. The records are parts of payload.
func unpackRecords(payload []byte, count int) ([][]byte, error) {
	out := make([][]byte, 0, max(0, min(count, maxRecords)))
	for len(payload) > 0 {
		if len(payload) < 4 {
			return out, fmt.Errorf("%w: %d bytes after the last record of a bundle", ErrCorrupt, len(payload))
		}
		n := binary.LittleEndian.Uint32(payload)
		if n == 0 || n > ledger.MaxRecordBytes || int(n) > len(payload)-4 {
			return out, fmt.Errorf("%w: a record of %d bytes where %d are left", ErrCorrupt, n, len(payload)-4)
		}
		if len(out) == count {
			return out, fmt.Errorf("%w: more records than the bundle's %d", ErrCorrupt, count)
		}
		out = append(out, payload[4:4+n:4+n])
		payload = payload[4+n:]
	}
	if len(out) != count {
		return out, fmt.Errorf("%w: %d records in a bundle of %d", ErrCorrupt, len(out), count)
	}
	return out, nil
}

// leavesOf are the Merkle leaves of records.
func leavesOf(records [][]byte) []byte {
	out := make([]byte, 0, len(records)*rfc6962.DefaultHasher.Size())
	for _, r := range records {
		out = append(out, rfc6962.DefaultHasher.HashLeaf(r)...)
	}
	return out
}
