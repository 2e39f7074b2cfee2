// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"
)

// Where a collector has its log: Dir in its data directory, with log.key and log.vkey, and
// the log itself, which may be served, in TilesDir in that.
const (
	Dir      = "head_log"
	TilesDir = "tiles"
)

const (
	// batch is how many entries are added at once: an entry bundle of tlog-tiles.
	batch = layout.EntryBundleWidth
	// batchAge is how long Tessera waits for more of a batch. Adding one takes
	// microseconds.
	batchAge = 250 * time.Millisecond
	// defaultInterval is the least time between two checkpoints.
	defaultInterval = time.Second
	// firstRetry and lastRetry bound the time between tries after an error.
	firstRetry, lastRetry = time.Second, 30 * time.Second
	// drainTime bounds the end: what is stored is added, and a checkpoint published.
	drainTime = 5 * time.Second
)

// ErrDiffers says that the log has something else than the store. One of them was changed,
// or put back from a copy: a human decides which. The log is not gone on with.
var ErrDiffers = errors.New("the log is not the store's")

// Source has the entries that the log is to have. A *store.Store is one.
type Source interface {
	// Entries are entries from an index on, in order, at most so many; none where there
	// are no more yet. They MUST be the same each time.
	Entries(ctx context.Context, from uint64, most int) ([][]byte, error)
	// EntryCount is how many there are.
	EntryCount(ctx context.Context) (uint64, error)
	// Stored returns a channel that is closed when there may be more.
	Stored() <-chan struct{}
}

// Options configures a [Log].
type Options struct {
	// Dir is the log's directory, which is made. It MUST be set.
	Dir string
	// Signer signs checkpoints; its name is the log's origin. It MUST be set, and sign
	// nothing else.
	Signer note.Signer
	// Source has the entries. It MUST be set.
	Source Source
	// Policy names the witnesses that must cosign, in the form of C2SP tlog-policy. Empty:
	// none.
	Policy []byte
	// Interval is the least time between two checkpoints. Default: 1 s.
	Interval time.Duration
	// Registry takes the metrics; nil is none.
	Registry prometheus.Registerer
	// Log hears of what fails. Nil is silent.
	Log *slog.Logger
}

// Log is the collector's log. Its methods may be called by several goroutines.
type Log struct {
	options   Options
	witnesses tessera.WitnessGroup

	mu      sync.Mutex
	differs error // why the log is not gone on with; guarded by mu
}

// New returns a log that does nothing yet: Run does.
func New(o Options) (*Log, error) {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{options: o}
	if len(o.Policy) > 0 {
		var err error
		if l.witnesses, err = tessera.NewWitnessGroupFromPolicy(o.Policy); err != nil {
			return nil, fmt.Errorf("witness policy: %w", err)
		}
	}
	routeTesseraLog(o.Log)
	if o.Registry != nil {
		l.register(o.Registry)
	}
	return l, nil
}

var routed sync.Once

// routeTesseraLog has Tessera say what it says, witnesses that do not answer among it, in
// our log. There is one for the process.
func routeTesseraLog(log *slog.Logger) {
	routed.Do(func() { klog.SetSlogLogger(log.With("part", "tessera")) })
}

// Err is why the log is not gone on with, until the process ends; nil where it is.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.differs
}

// Run adds what is stored to the log until ctx ends, and then what is stored by then.
func (l *Log) Run(ctx context.Context) {
	// What Tessera does in the background goes on until it was told to end.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var w *writer
	l.retry(ctx, "open the log", func() (err error) {
		w, err = l.open(own)
		return err
	})
	if w == nil {
		return
	}
	l.retry(ctx, "add to the log", func() error { return w.follow(ctx) })
	ending, stop := context.WithTimeout(own, drainTime)
	defer stop()
	if err := w.end(ending, l.Err() == nil); err != nil {
		l.options.Log.WarnContext(ctx, "the log ends behind the store, and catches up at the next start", "error", err)
	}
}

// retry does something until it succeeds, ctx ends, or the log is not the store's.
func (l *Log) retry(ctx context.Context, doing string, do func() error) {
	for wait := firstRetry; ctx.Err() == nil; wait = min(2*wait, lastRetry) {
		err := do()
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case errors.Is(err, ErrDiffers):
			l.mu.Lock()
			l.differs = err
			l.mu.Unlock()
			l.options.Log.ErrorContext(ctx, "the log is not gone on with until a human has looked: docs/collector.md", "error", err)
			<-ctx.Done()
			return
		}
		l.options.Log.ErrorContext(ctx, "the log falls behind", "doing", doing, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// writer is a log that is open. It is for one goroutine.
type writer struct {
	source   Source
	appender *tessera.Appender
	reader   tessera.LogReader
	shutdown func(context.Context) error
	// compared says that the log's newest entries were held against the source's.
	compared bool
}

// open opens the log, or makes it. It MUST NOT be called again once it has succeeded: what
// Tessera does in the background excludes other processes, and not its own.
func (l *Log) open(ctx context.Context) (*writer, error) {
	driver, err := posix.New(ctx, posix.Config{Path: l.options.Dir, HTTPClient: witnessClient()})
	if err != nil {
		return nil, fmt.Errorf("open the log in %s: %w", l.options.Dir, err)
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(l.options.Signer).
		WithCheckpointInterval(l.options.Interval).
		WithCheckpointRepublishInterval(0).
		WithBatching(batch, batchAge).
		WithWitnesses(l.witnesses, &tessera.WitnessOptions{Timeout: witnessTime}).
		WithShutdownTimeout(drainTime)
	w := &writer{source: l.options.Source}
	if w.appender, w.shutdown, w.reader, err = tessera.NewAppender(ctx, driver, options); err != nil {
		return nil, fmt.Errorf("open the log in %s: %w", l.options.Dir, err)
	}
	return w, nil
}

// follow adds what is stored until ctx ends or something fails.
func (w *writer) follow(ctx context.Context) error {
	for {
		more := w.source.Stored()
		if err := w.catchUp(ctx); err != nil {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// catchUp adds what is stored, from the log's own size on.
func (w *writer) catchUp(ctx context.Context) error {
	next, err := w.reader.IntegratedSize(ctx)
	if err != nil {
		return fmt.Errorf("size of the log: %w", err)
	}
	if !w.compared {
		if err := w.compare(ctx, next); err != nil {
			return err
		}
		w.compared = true
	}
	for {
		entries, err := w.source.Entries(ctx, next, batch)
		if err != nil || len(entries) == 0 {
			return err
		}
		if err := w.add(ctx, next, entries); err != nil {
			return err
		}
		next += uint64(len(entries))
	}
}

// compare holds the log's newest entries against those of the store.
func (w *writer) compare(ctx context.Context, size uint64) error {
	stored, err := w.source.EntryCount(ctx)
	if err != nil {
		return err
	}
	if size > stored {
		return fmt.Errorf("%w: it has %d entries, the store %d", ErrDiffers, size, stored)
	}
	if size == 0 {
		return nil
	}
	index := (size - 1) / batch
	raw, err := w.reader.ReadEntryBundle(ctx, index, uint8(size%batch)) //nolint:gosec // below batch
	if err != nil {
		return fmt.Errorf("newest entries of the log: %w", err)
	}
	have, err := bundleOf(raw)
	if err != nil {
		return err
	}
	want, err := w.source.Entries(ctx, index*batch, int(size-index*batch)) //nolint:gosec // at most batch
	if err != nil {
		return err
	}
	for i := range want {
		if i >= len(have) || !bytes.Equal(have[i], want[i]) {
			return fmt.Errorf("%w: entry %d is another", ErrDiffers, index*batch+uint64(i))
		}
	}
	return nil
}

// bundleOf takes an entry bundle apart.
func bundleOf(raw []byte) ([][]byte, error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(raw); err != nil {
		return nil, fmt.Errorf("entry bundle of the log: %w", err)
	}
	return b.Entries, nil
}

// add adds entries in their places. It returns when Tessera has written all of them, or
// has failed with all that it did not.
func (w *writer) add(ctx context.Context, next uint64, entries [][]byte) error {
	futures := make([]tessera.IndexFuture, len(entries))
	for i, entry := range entries {
		futures[i] = w.appender.Add(context.WithoutCancel(ctx), tessera.NewEntry(entry))
	}
	var failed error
	for i, future := range futures {
		at, err := future()
		switch want := next + uint64(i); { //nolint:gosec // an index
		case err != nil && failed == nil:
			failed = fmt.Errorf("entry %d: %w", want, err)
		case err == nil && at.Index != want:
			failed = fmt.Errorf("%w: entry %d was given the place %d", ErrDiffers, want, at.Index)
		}
	}
	return failed
}

// end adds what is still to be added, and waits for a checkpoint over it.
func (w *writer) end(ctx context.Context, whole bool) error {
	var err error
	if whole {
		err = w.catchUp(ctx)
	}
	return errors.Join(err, w.shutdown(ctx))
}
