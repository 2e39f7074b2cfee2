// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// pending is an entry on its way into the ledger.
type pending struct {
	entry      Entry
	body       []byte
	sealed     []byte // canonical bytes of entry.Sealed
	durability writv1.Durability
	async      bool
	state      atomic.Int32 // queued, taken by the committer, or abandoned by its caller

	at      Position // written before done
	err     error    // written before done
	lateErr error    // written before durable

	done    chan struct{} // the record is written, or is not going to be
	durable chan struct{} // it is as durable as was asked; nil for DURABILITY_PROCESS
}

const (
	stateQueued int32 = iota
	stateTaken
	stateAbandoned
)

var pendings = sync.Pool{New: func() any { return &pending{done: make(chan struct{}, 1)} }}

// newPending checks an entry and encodes its body.
func newPending(e Entry) (*pending, error) {
	if err := checkEntry(e); err != nil {
		return nil, err
	}
	if !slices.IsSortedFunc(e.Sensitive, comparePaths) {
		e.Sensitive = slices.Clone(e.Sensitive)
		slices.SortFunc(e.Sensitive, comparePaths)
	}
	for i := range e.Sensitive[min(1, len(e.Sensitive)):] {
		if e.Sensitive[i].Path == e.Sensitive[i+1].Path {
			return nil, fmt.Errorf("%w: two sensitive values at one path", ErrInvalid)
		}
	}
	p := pendings.Get().(*pending)
	body, err := canonical.Append(p.body[:0], e.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(body) > MaxRecordBytes {
		return nil, fmt.Errorf("%w: its body alone has %d bytes", ErrTooLarge, len(body))
	}
	if e.Sealed != nil {
		if p.sealed, err = canonical.Marshal(e.Sealed); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	p.entry, p.body = e, body
	p.entry.Body, p.entry.Sealed = nil, nil
	return p, nil
}

// release gives p back. The caller MUST have taken every signal of it.
func (p *pending) release() {
	body, done := p.body, p.done
	*p = pending{body: body, done: done}
	pendings.Put(p)
}

func comparePaths(a, b Sensitive) int { return strings.Compare(a.Path, b.Path) }

// checkEntry holds an entry against the bounds of record.proto.
func checkEntry(e Entry) error {
	want := bodyOf(e.Kind)
	switch {
	case want == nil:
		return fmt.Errorf("%w: kind %d", ErrInvalid, e.Kind)
	case e.Body == nil || e.Body.ProtoReflect().Descriptor() != want.ProtoReflect().Descriptor():
		return fmt.Errorf("%w: the body of %v must be a %s", ErrInvalid, e.Kind, want.ProtoReflect().Descriptor().Name())
	case len(e.Tenant) > 4*128 || utf8.RuneCountInString(e.Tenant) > 128 || !utf8.ValidString(e.Tenant):
		return fmt.Errorf("%w: tenant", ErrInvalid)
	case len(e.DecisionID) > 16:
		return fmt.Errorf("%w: decision id", ErrInvalid)
	case len(e.BundleDigest) > 32:
		return fmt.Errorf("%w: bundle digest", ErrInvalid)
	case len(e.Sensitive) > 256:
		return fmt.Errorf("%w: more than 256 sensitive values", ErrTooLarge)
	}
	for _, s := range e.Sensitive {
		if s.Path == "" || utf8.RuneCountInString(s.Path) > 1024 || !utf8.ValidString(s.Path) {
			return fmt.Errorf("%w: path of a sensitive value", ErrInvalid)
		}
		if len(s.Digest) != 0 && len(s.Digest) != 32 {
			return fmt.Errorf("%w: commitment to a sensitive value", ErrInvalid)
		}
	}
	return nil
}

// bodyOf is the message that belongs to a kind of record, or nil for none.
func bodyOf(k writv1.RecordKind) proto.Message {
	switch k {
	case writv1.RecordKind_RECORD_KIND_START:
		return (*writv1.StartRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_DECISION:
		return (*writv1.DecisionRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_OUTCOME:
		return (*writv1.OutcomeRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_HEARTBEAT:
		return (*writv1.HeartbeatRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_BUNDLE:
		return (*writv1.BundleRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_APPROVAL:
		return (*writv1.ApprovalVote)(nil)
	case writv1.RecordKind_RECORD_KIND_REVIEW:
		return (*writv1.ReviewLabel)(nil)
	case writv1.RecordKind_RECORD_KIND_END:
		return (*writv1.EndRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_SESSION:
		return (*writv1.SessionRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_OBSERVATION:
		return (*writv1.ObservationRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_WORKFLOW:
		return (*writv1.WorkflowRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_ALERT:
		return (*writv1.AlertRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_STOP:
		return (*writv1.StopOrder)(nil)
	case writv1.RecordKind_RECORD_KIND_READ:
		return (*writv1.ReadRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_KEY:
		return (*writv1.KeyRecord)(nil)
	case writv1.RecordKind_RECORD_KIND_LEASE:
		return (*writv1.LeaseRecord)(nil)
	default:
		return nil
	}
}

// appendRecord appends the canonical bytes of a Record. It is proto/canonical for
// one message, by hand: this runs in the committer, the body does not.
func (l *Ledger) appendRecord(dst []byte, p *pending, index uint64, now time.Time) ([]byte, error) {
	e := &p.entry
	dst = appendBytes(dst, 1, l.id.logID[:])
	dst = appendFixed64(dst, 2, index)
	dst = appendVarint(dst, 3, l.epoch)
	dst = appendString(dst, 4, e.Tenant)
	dst = appendFixed64(dst, 5, uint64(now.UnixNano()))           //nolint:gosec // after 1970
	dst = appendVarint(dst, 6, uint64(e.Kind))                    //nolint:gosec // checked: not negative
	dst = appendFixed64(dst, 7, uint64(max(now.Sub(l.start), 0))) //nolint:gosec // not negative
	dst = appendBytes(dst, 8, e.DecisionID)
	dst = appendBytes(dst, 9, e.BundleDigest)
	dst = appendBytes(dst, 10, p.body)
	for _, s := range e.Sensitive {
		digest, err := l.id.commitment(index, s)
		if err != nil {
			return dst, err
		}
		n := protowire.SizeTag(1) + protowire.SizeBytes(len(s.Path)) + protowire.SizeTag(2) + protowire.SizeBytes(len(digest))
		dst = protowire.AppendTag(dst, 11, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(n)) //nolint:gosec // a size
		dst = appendString(dst, 1, s.Path)
		dst = appendBytes(dst, 2, digest)
	}
	return appendBytes(dst, 12, p.sealed), nil
}

func appendBytes(dst []byte, n protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, n, protowire.BytesType), v)
}

func appendString(dst []byte, n protowire.Number, v string) []byte {
	if v == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, n, protowire.BytesType), v)
}

func appendFixed64(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendFixed64(protowire.AppendTag(dst, n, protowire.Fixed64Type), v)
}

func appendVarint(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}
