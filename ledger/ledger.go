// SPDX-License-Identifier: Apache-2.0

// Package ledger keeps the records of one agent: append-only, in order, in a
// Merkle tree (RFC 6962) whose head is signed with every batch that is written.
//
// What it promises. Append answers only when the record is as durable as was
// asked: written together with its signed head (survives the death of the
// process), synced to the disk (of the node), acknowledged by the collector (of
// the volume). No answered record is missing after a restart; what was cut off is
// reported. A ledger that cannot write says so, with [ErrUnavailable] or
// [ErrFull], and its caller must deny; it never tries an fsync again and assumes
// (an fsync that failed once may succeed without having written), but writes the
// segment anew from what it can still prove, and goes on by itself.
//
// What it does not do. It knows no policy, validates no body, and does not seal
// originals: ledger/originals does. Records that the collector has not acknowledged are protected from
// everybody but the holder of log.key.
//
// A ledger is a directory: log.key and log.vkey, commit.key, incarnation, lock,
// and segments `<epoch>-<first index>.dlog`. A segment is a run of frames
//
//	u32le length | u32le CRC-32C(length || type || payload) | u8 type | payload
//
// of the types header (0: "WRITDLOG", u32le version 1, u64le epoch, u64le first
// index, u16le length of the origin, origin, u8 count, and the compact range of
// the tree before the first index, 32 bytes a hash, left to right), record (1: the
// canonical bytes of a [writv1.Record]), head (2: u64le size, root, 4 bytes of
// key id, Ed25519 signature over the text of the C2SP checkpoint) and seal (3:
// u64le size, root). A batch is records and one head, in one write. Every segment
// but the last ends with a seal, and was synced before the next one was made.
//
//	l, recovery, err := ledger.Open(ledger.Options{Dir: dir, Origin: "example.org/agent/desk", OnRecord: state.Fold})
//	position, err := l.Append(ctx, ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_DECISION, ...}, writv1.Durability_DURABILITY_NODE)
//	receipt, err := position.Receipt()
package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// What Append and its kin fail with. Every one of them means: deny.
var (
	// ErrFull says that MaxBytes is reached, and nothing was written.
	ErrFull = errors.New("ledger is full")
	// ErrUnavailable says that the ledger cannot write or sync, or is closed.
	ErrUnavailable = errors.New("ledger is unavailable")
	// ErrClosed is the ErrUnavailable of a ledger that was closed.
	ErrClosed = fmt.Errorf("%w: closed", ErrUnavailable)
	// ErrTooLarge says that the record would have more than MaxRecordBytes.
	ErrTooLarge = errors.New("record is too large")
	// ErrNotAcknowledged says that the record is written and synced, and the
	// collector has not acknowledged it in time.
	ErrNotAcknowledged = errors.New("record is not acknowledged")
	// ErrInvalid says that an entry is not one that a record can hold.
	ErrInvalid = errors.New("entry is not valid")
	// ErrCorrupt says that what is on the disk is not what was written.
	ErrCorrupt = errors.New("ledger is corrupt")
	// ErrLocked says that another process has the directory.
	ErrLocked = errors.New("ledger is in use")
	// ErrPruned says that the records asked for are no longer held.
	ErrPruned = errors.New("records are pruned")
	// ErrMismatch says that a root is not the ledger's own at that size.
	ErrMismatch = errors.New("root is not the ledger's own")
)

// MaxRecordBytes is how large a record may be: entry bundles of C2SP tlog-tiles
// have 16-bit lengths.
const MaxRecordBytes = 65_535

// Bounds of a batch. A batch fits one bundle of the stream.
const (
	batchRecords = 256
	batchBytes   = 192 << 10 // and one record more: at most 256 KiB
	queueEntries = 4096
	tailBytes    = 1 << 20
)

// Options say where a ledger is and how it behaves. The zero value of every field
// but Dir has a default.
type Options struct {
	// Dir holds the ledger. It is made with mode 0700.
	Dir string
	// Origin is the first part of the ledger's name; "/" and the incarnation follow
	// it. May be empty where a ledger exists.
	Origin string
	// MaxBytes bounds the segments on the disk. The last sixteenth is kept for
	// records that are not decisions. Default: 1 GiB.
	MaxBytes int64
	// SegmentBytes is how large a segment gets. Default: 16 MiB.
	SegmentBytes int64
	// AcknowledgeTimeout is how long DURABILITY_REMOTE waits. Default: 2 s.
	AcknowledgeTimeout time.Duration
	// SyncInterval is how long a record may be unsynced. Default and limit: 100 ms.
	SyncInterval time.Duration
	// ProbeInterval is how often an unavailable ledger tries to mend itself.
	// Default: 1 s.
	ProbeInterval time.Duration
	// Clock gives the time of records. Default: time.Now.
	Clock func() time.Time
	// OnRecord is called in Open with every record that is held, in order. An error
	// ends Open. The record is the callee's to keep.
	OnRecord func(*writv1.Record) error
	// OnLost is called, from a goroutine of the ledger, for an entry of AppendAsync
	// that could not be written. It MUST NOT call the ledger.
	OnLost func(Entry, error)
	// OnState is called, from a goroutine of the ledger, with the error when the
	// ledger becomes unavailable, and with nil when it is well again. It MUST NOT
	// call the ledger.
	OnState func(error)
	// FS is where the segments are. Default: the operating system's.
	FS FS
}

// Entry is what a caller has recorded.
type Entry struct {
	Kind         writv1.RecordKind
	Tenant       string
	DecisionID   []byte
	BundleDigest []byte
	// Body is the message that belongs to Kind. It is read before Append or
	// AppendAsync return.
	Body proto.Message
	// Sensitive values are kept out of the record; commitments stand in it.
	Sensitive []Sensitive
	// Sealed, where there is one, holds the sensitive values for who may open it.
	Sealed *writv1.SealedOriginals
	// Written, where there is one, is called by the committer once it knows what
	// becomes of the record: with nil when it is written, in the order of the
	// records and before Append returns, and else with what OnLost or the caller of
	// Append gets. It is not called for an entry that Append or AppendAsync did not
	// take into the queue, or whose Append its context ended. It MUST be quick, and
	// MUST NOT call the ledger.
	Written func(error)
}

// Sensitive is a value that only a commitment to is recorded.
type Sensitive struct {
	// Path is "arguments." or "result." and the field's path.
	Path string
	// Value is the value's canonical JSON.
	Value []byte
	// Digest is the commitment to it, 32 bytes, where the caller commits under a salt of
	// its own. Absent: the ledger does, under one of its commit key.
	Digest []byte
}

// Position is where an entry was recorded.
type Position struct {
	// Index of the record. Meaningful when Recorded.
	Index uint64
	// Recorded says that the record is in the ledger and will be folded, even where
	// Append returns an error because it is not as durable as was asked. The caller
	// of such an Append denies, and MUST record an outcome that takes the decision
	// back.
	Recorded bool

	in   *batch
	slot int
}

// Recovery is what Open found.
type Recovery struct {
	// Origin of the ledger, incarnation included.
	Origin string
	// Fresh says that the ledger was made: its incarnation and key are new.
	Fresh bool
	// Epoch that begins.
	Epoch uint64
	// Oldest is the index of the first record held.
	Oldest uint64
	// Size is the number of records, and Root the root of the tree over them.
	Size uint64
	Root []byte
	// LostBytes were cut off: a tail that no signed head covers, so that nothing
	// of it was ever answered.
	LostBytes int64
	// Clean says that the last record is an END.
	Clean bool
}

// Ledger is an open ledger. Its methods may be called by several goroutines.
type Ledger struct {
	opts   Options
	fs     FS
	id     *identity
	epoch  uint64
	start  time.Time // of the epoch, with the monotonic reading
	unlock func() error

	queue    chan *pending
	flush    chan chan error // committer to syncer: sync now, and say how it went
	urgent   chan struct{}   // committer to syncer: somebody waits for a sync
	broken   chan struct{}   // syncer to committer: the ledger is unavailable
	stopping chan struct{}   // closed by Close
	stopped  chan struct{}   // closed when the committer has ended
	synced   chan struct{}   // closed when the syncer has ended
	closing  sync.Once
	closeErr error

	down  atomic.Bool  // failure != nil, for Append to look at without the lock
	bytes atomic.Int64 // of all segments

	// Owned by the committer alone.
	tree   tree // over what is written
	hasher hasher
	draft  draft

	mu       sync.Mutex
	failure  error               // why the ledger is unavailable
	segments []segment           // oldest first; the last is being written
	file     File                // of the last segment
	size     uint64              // records written
	durable  uint64              // records synced
	tail     []*batch            // newest batches, at most tailBytes
	tailSize int                 // bytes of tail
	syncing  []*pending          // wait for a sync
	waiting  map[*pending]bool   // wait for an acknowledgement
	acked    uint64              // records acknowledged
	sent     map[uint64][32]byte // roots of heads that readers were given, by size
	changed  chan struct{}       // closed when durable grows or the ledger closes; nil if nobody waits
	rewrites uint64              // times a segment was written anew
}

// segment is one file.
type segment struct {
	name  string
	epoch uint64
	first uint64 // index of the first record
	end   uint64 // index after the last
	bytes int64
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 16 << 20
	}
	if o.AcknowledgeTimeout <= 0 {
		o.AcknowledgeTimeout = 2 * time.Second
	}
	if o.SyncInterval <= 0 || o.SyncInterval > 100*time.Millisecond {
		o.SyncInterval = 100 * time.Millisecond
	}
	if o.ProbeInterval <= 0 {
		o.ProbeInterval = time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.FS == nil {
		o.FS = OS{}
	}
	return o
}

// Open opens the ledger in a directory, or makes one. It verifies what is there,
// cuts off a torn tail, calls OnRecord with every record, and begins an epoch. The
// caller appends the START record.
func Open(opts Options) (*Ledger, Recovery, error) {
	opts = opts.withDefaults()
	unlock, err := lockDir(opts.Dir)
	if err != nil {
		return nil, Recovery{}, err
	}
	l := &Ledger{
		opts: opts, fs: opts.FS, unlock: unlock, start: opts.Clock(), hasher: newHasher(),
		queue: make(chan *pending, queueEntries), flush: make(chan chan error),
		urgent: make(chan struct{}, 1), broken: make(chan struct{}, 1),
		stopping: make(chan struct{}), stopped: make(chan struct{}), synced: make(chan struct{}),
		waiting: map[*pending]bool{}, sent: map[uint64][32]byte{},
	}
	recovery, err := l.recover()
	if err != nil {
		return nil, recovery, errors.Join(fmt.Errorf("open ledger %s: %w", opts.Dir, err), unlock())
	}
	go l.commitLoop()
	go l.syncLoop()
	return l, recovery, nil
}

// Origin is the ledger's name, incarnation included.
func (l *Ledger) Origin() string { return l.id.origin }

// VerifierKey is the key that the ledger's heads are signed with, in the vkey form
// of C2SP signed-note.
func (l *Ledger) VerifierKey() string { return l.id.vkey }

// Epoch is the count of starts on this ledger, this one included.
func (l *Ledger) Epoch() uint64 { return l.epoch }

// Status is a ledger's state at one moment.
type Status struct {
	Size         uint64 // records written
	Synced       uint64 // of them synced to the disk
	Acknowledged uint64 // of them acknowledged by the collector
	Oldest       uint64 // index of the first record held
	Bytes        int64  // of the segments
	MaxBytes     int64
	Err          error // why the ledger is unavailable, or nil
}

// Status says how the ledger is.
func (l *Ledger) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Status{
		Size: l.size, Synced: l.durable, Acknowledged: l.acked, Oldest: l.segments[0].first,
		Bytes: l.bytes.Load(), MaxBytes: l.opts.MaxBytes, Err: l.failure,
	}
}

// Close appends an END record with end as its body (nil: none), syncs, seals and
// gives the directory free. Appends that are under way are finished first.
func (l *Ledger) Close(end *writv1.EndRecord) error {
	l.closing.Do(func() {
		if end != nil {
			_, l.closeErr = l.Append(context.Background(), Entry{Kind: writv1.RecordKind_RECORD_KIND_END, Body: end}, writv1.Durability_DURABILITY_NODE)
		}
		close(l.stopping)
		<-l.stopped
		<-l.synced
		l.closeErr = errors.Join(l.closeErr, l.unlock())
	})
	return l.closeErr
}
