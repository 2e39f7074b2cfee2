// SPDX-License-Identifier: Apache-2.0

// Package store keeps what the collector has verified: the records of many ledgers, the
// signed heads that cover them, an index to find them by, and the findings.
//
// A store is a directory with one SQLite file, store.db, and a lock. It promises that
// what [Store.Put] stored is there after a crash of the process or of the machine; that
// records, their head and the index are stored together or not at all; that nobody goes
// on from a state of a ledger that somebody else has moved (compare and swap on size and
// root); that a ledger keeps the key it was first stored with; that nothing stored is
// ever changed; and that [Verify] finds what was changed by others, from the bytes
// alone. The bytes of a record are kept as they were signed, bundle by bundle.
//
// It does not verify what comes in: that is stream.Receiver's, whose Accepted it takes.
// It removes nothing. It cannot tell that a whole ledger, or the newest bundles of all
// ledgers, were taken away by somebody who rewrites the file to fit: only heads and
// acknowledgements that were kept elsewhere can.
//
//	s, err := store.Open(ctx, dir, store.Options{})
//	held, err := s.Holding(ctx, origin)
//	accepted, err := stream.NewReceiver(held, key).Feed(bundle)
//	err = s.Put(ctx, held, accepted, vkey) // durable: now it may be acknowledged
//
// One process at a time has a store open for writing; [OpenReadOnly] and Verify work
// beside it and without it. A store copied while nobody writes it needs all of its
// files, store.db-wal among them.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What the methods of a store fail with, beside what SQLite says.
var (
	// ErrConflict says that the ledger is no longer what the caller goes on from. It
	// reads the holding again.
	ErrConflict = errors.New("the ledger was moved by somebody else")
	// ErrKey says that a ledger is held under another key.
	ErrKey = errors.New("the ledger is held under another key")
	// ErrInvalid says that what was to be stored is not of one piece.
	ErrInvalid = errors.New("not what a store takes")
	// ErrLocked says that another process has the store.
	ErrLocked = errors.New("store is in use")
	// ErrVersion says that another version of the program made the store.
	ErrVersion = errors.New("store is of another version")
	// ErrCorrupt says that the store holds what no store writes. Verify tells more.
	ErrCorrupt = errors.New("store is corrupt")
	// ErrReadOnly says that the store was opened for reading.
	ErrReadOnly = errors.New("store is read only")
	// ErrFindings says that there is no room for findings about one more ledger.
	ErrFindings = errors.New("too many findings")
)

// readers is how many connections read at once.
const readers = 4

// Options say how a store behaves. The zero value of every field has a default.
type Options struct {
	// Clock gives the times of storing. Default: time.Now.
	Clock func() time.Time
}

// Store is an open store. Its methods may be called by several goroutines.
type Store struct {
	dir    string
	clock  func() time.Time
	lock   io.Closer // nil where there is none to hold
	writer *writer   // nil in a store that is read only
	read   *sql.DB

	mu     sync.Mutex
	stored chan struct{} // closed at the next Put; guarded by mu
}

// Open opens the store in a directory, or makes it, and takes it for this process. It
// waits a little for offline commands that read it.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, clock: o.Clock, lock: lock, stored: make(chan struct{})}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", dir, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := createFile(s.dir); err != nil {
		return err
	}
	db, err := connect(filepath.Join(s.dir, fileName), writeConnection, 1)
	if err != nil {
		return err
	}
	if err := migrate(ctx, db); err != nil {
		return errors.Join(err, db.Close())
	}
	if s.writer, err = newWriter(ctx, db); err != nil {
		return errors.Join(err, db.Close())
	}
	s.read, err = connect(filepath.Join(s.dir, fileName), readConnection, readers)
	return err
}

// OpenReadOnly opens the store in a directory without changing anything, while a
// collector has it open and while none does. In the second case no collector can open
// it until this is closed.
func OpenReadOnly(ctx context.Context, dir string) (*Store, error) {
	s := &Store{dir: dir, clock: time.Now, stored: make(chan struct{})}
	if err := s.openReadOnly(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", dir, err), s.Close())
	}
	return s, nil
}

func (s *Store) openReadOnly(ctx context.Context) error {
	name := filepath.Join(s.dir, fileName)
	if _, err := os.Stat(name); err != nil {
		return err
	}
	lock, live, err := lockShared(s.dir)
	if err != nil {
		return err
	}
	s.lock = lock
	how, err := offlineConnection(name, live)
	if err != nil {
		return err
	}
	if s.read, err = connect(name, how, readers); err != nil {
		return err
	}
	return checkVersion(ctx, s.read)
}

// Close gives the store free. Calls that are under way fail or are finished first.
func (s *Store) Close() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.writer != nil { // last, for the last connection tidies up
		errs = append(errs, s.writer.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Stored returns a channel that is closed at the next Put that stores records, or the
// next finding, for watchers in this process: take it, then List what there is, then wait
// for it. In a store that is read only it is never closed.
func (s *Store) Stored() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored
}

// announce wakes those who wait for what is stored.
func (s *Store) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.stored)
	s.stored = make(chan struct{})
}
