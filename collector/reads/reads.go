// SPDX-License-Identifier: Apache-2.0

// Package reads keeps a record of what is read at a collector: who asked for what, as a
// ledger of the collector's own, in the directory "reads" of its data directory.
//
// It is a ledger like an agent's: append-only segments, records as the leaves of a Merkle
// tree, a signed head after every batch, a key of its own beside it (log.vkey). So it is
// read and verified as one: "writ records list --ledger DATA_DIR/reads", "writ verify
// --ledger DATA_DIR/reads", and "writ verify --store DATA_DIR" does it too.
//
// It promises that what [Log.Add] returned nil for is synced to the disk. It is bounded, by
// 1 GiB; full, or on a disk that cannot be written, it takes nothing, and its caller MUST
// not answer then. It prunes nothing: nobody acknowledges it.
//
// It cannot record what is read beside the collector: whoever reads its files reads them.
//
//	log, err := reads.Open(reads.Options{Dir: filepath.Join(dataDir, reads.DirName), Origin: "example.org/collector/1/reads"})
//	err = log.Add(ctx, &writv1.ReadRecord{Reader: id, Method: method, Request: request})
package reads

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// DirName is the directory of the reads in a collector's data directory.
const DirName = "reads"

// Options configures a [Log].
type Options struct {
	// Dir holds the ledger. It is made with mode 0700.
	Dir string
	// Origin is the first part of its name; "/" and the incarnation follow it.
	Origin string
	// MaxBytes bounds it. Default: 1 GiB.
	MaxBytes int64
	// Clock tells the time. Default: time.Now.
	Clock func() time.Time
}

// Log is the record of what is read. Its methods may be called by several goroutines.
type Log struct{ ledger *ledger.Ledger }

// Open opens the log, or makes it, and records that it begins.
func Open(o Options) (*Log, error) {
	l, recovered, err := ledger.Open(ledger.Options{Dir: o.Dir, Origin: o.Origin, MaxBytes: o.MaxBytes, Clock: o.Clock})
	if err != nil {
		return nil, fmt.Errorf("open the record of reads: %w", err)
	}
	start := &writv1.StartRecord{
		Origin: recovered.Origin, RecoveredSize: recovered.Size, RecoveredRoot: recovered.Root, LostBytes: uint64(recovered.LostBytes), //nolint:gosec // not negative
	}
	log := &Log{l}
	if err := log.append(context.Background(), writv1.RecordKind_RECORD_KIND_START, start); err != nil {
		_ = l.Close(nil)
		return nil, fmt.Errorf("open the record of reads: %w", err)
	}
	return log, nil
}

// Add records a read. It is durable when Add returns nil.
func (l *Log) Add(ctx context.Context, r *writv1.ReadRecord) error {
	return l.append(ctx, writv1.RecordKind_RECORD_KIND_READ, r)
}

// Close records that the log ends, and gives its directory free.
func (l *Log) Close() error { return l.ledger.Close(&writv1.EndRecord{}) }

func (l *Log) append(ctx context.Context, kind writv1.RecordKind, body proto.Message) error {
	_, err := l.ledger.Append(ctx, ledger.Entry{Kind: kind, Body: body}, writv1.Durability_DURABILITY_NODE)
	return err
}
