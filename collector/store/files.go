// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver
)

const (
	fileName = "store.db"
	lockName = "lock"
)

// lockPatience bounds how long Open waits for offline commands to end.
const lockPatience = 10 * time.Second

// always are the settings of every connection: SQL in the file is not trusted, and what
// is read of it is looked at.
var always = []string{"busy_timeout(10000)", "trusted_schema(0)", "cell_size_check(1)"}

// connection is how SQLite opens the file.
type connection struct {
	uri     map[string]string
	pragmas []string
}

var (
	writeConnection = connection{
		uri: map[string]string{"mode": "rw", "_txlock": "immediate"},
		pragmas: []string{
			"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
			"cache_size(-65536)",           // KiB; the index on decision ids is written all over
			"journal_size_limit(67108864)", // what a slow reader made the WAL grow to is given back
		},
	}
	// readConnection is beside a writer, this process's or another's.
	readConnection = connection{uri: map[string]string{"mode": "ro"}, pragmas: []string{"query_only(1)"}}
	// frozenConnection reads a file that nobody writes and that has no WAL: without it
	// SQLite would make one.
	frozenConnection = connection{uri: map[string]string{"mode": "ro", "immutable": "1"}, pragmas: []string{"query_only(1)"}}
	// leftConnection reads a file whose writer was killed, with its WAL, which it
	// neither changes nor removes.
	leftConnection = connection{uri: map[string]string{"mode": "ro", "readonly_shm": "1"}, pragmas: []string{"query_only(1)"}}
)

// connect prepares a pool of connections.
func connect(name string, c connection, most int) (*sql.DB, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	q := url.Values{"_pragma": append(append([]string(nil), always...), c.pragmas...), "_defensive": {"1"}, "_dqs": {"0"}}
	for k, v := range c.uri {
		q.Set(k, v)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(most)
	db.SetMaxIdleConns(most)
	return db, nil
}

// offlineConnection says how to read a file without changing anything. live says that
// a collector has it open; else nobody does until the caller gives its lock free.
func offlineConnection(name string, live bool) (connection, error) {
	wal, err := size(name + "-wal")
	switch {
	case err != nil:
		return connection{}, err
	case live:
		return readConnection, nil
	case wal == 0:
		return frozenConnection, nil
	}
	if _, err := os.Stat(name + "-shm"); err != nil {
		return connection{}, fmt.Errorf("%s-wal has records that are not yet in %s, and %w: copy all three files, or start a collector once", fileName, fileName, err)
	}
	return leftConnection, nil
}

func size(name string) (int64, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// createFile makes an empty file with the mode that SQLite then gives to the others.
func createFile(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir) //nolint:gosec // the directory is the operator's
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Close(), d.Sync(), d.Close())
}

// lockDir makes dir if need be, and takes it for this process. The lock goes with the
// process, however that ends.
func lockDir(ctx context.Context, dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store lock: %w", err)
	}
	if err := waitLock(ctx, f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return locked{f}, nil
}

// locked is a file whose lock this process has. To close it is not enough: a child
// that is being started has it open too, until it runs its program.
type locked struct{ *os.File }

func (l locked) Close() error { return errors.Join(flock(l.File, unix.LOCK_UN), l.File.Close()) }

// waitLock takes the lock once those who only read have given it free.
func waitLock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := flock(f, unix.LOCK_EX)
		if !errors.Is(err, ErrLocked) {
			return err
		}
		if err := flock(f, unix.LOCK_SH); err != nil { // not only readers have it
			return err
		}
		if err := flock(f, unix.LOCK_UN); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w by commands that read it", ErrLocked)
		case <-again.C:
		}
	}
}

// lockShared keeps collectors out of dir, or says that one is live there. A copy of a
// store has no lock, and needs none.
func lockShared(dir string) (lock io.Closer, live bool, err error) {
	f, err := os.Open(filepath.Join(dir, lockName)) //nolint:gosec // the directory is the operator's
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("open store lock: %w", err)
	}
	switch err := flock(f, unix.LOCK_SH); {
	case errors.Is(err, ErrLocked):
		return nil, true, f.Close()
	case err != nil:
		return nil, false, errors.Join(err, f.Close())
	}
	return locked{f}, false, nil
}

func flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB) //nolint:gosec // descriptors are small
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}
