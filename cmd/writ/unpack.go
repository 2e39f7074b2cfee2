// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/writ-dev/writ/ledger/proofs"
)

// Bounds of an archive of a ledger.
const (
	maxUnpackedFiles = 100_000
	maxUnpackedBytes = 16 << 30
)

// ledgerFile is the name of a file that verifying a ledger reads.
var ledgerFile = regexp.MustCompile(`^(log\.vkey|[0-9]{8,20}-[0-9]{20}\.dlog(\.tmp)?)$`)

// unpackLedger takes the segments and the key of a ledger out of a tar archive, compressed
// by gzip or zstd or not, into a new directory of its own that the caller removes. Of the
// names in it only the last part is used, and only where it is one of a ledger's files.
func unpackLedger(ctx context.Context, archive string, stderr io.Writer) (dir string, err error) {
	file, err := os.Open(archive) //nolint:gosec // the caller names it
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // read only
	if dir, err = os.MkdirTemp("", "writ-verify-"); err != nil {
		return "", err
	}
	u := &unpacking{dir: dir, stderr: stderr, left: maxUnpackedBytes}
	in, err := proofs.Decompress(file)
	if err == nil {
		err = errors.Join(u.all(ctx, tar.NewReader(in)), in.Close())
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("unpack %s: %w", archive, err), os.RemoveAll(dir))
	}
	return dir, nil
}

// unpacking is a run of unpackLedger.
type unpacking struct {
	dir    string
	stderr io.Writer
	from   string // directory in the archive
	files  int
	left   int64 // bytes
}

func (u *unpacking) all(ctx context.Context, in *tar.Reader) error {
	for seen := 0; ; seen++ {
		entry, err := in.Next()
		switch {
		case errors.Is(err, io.EOF) && u.files == 0:
			return errors.New("it holds no segment of a ledger")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case seen >= maxUnpackedFiles:
			return fmt.Errorf("more than %d entries", maxUnpackedFiles)
		}
		name := path.Base(entry.Name)
		if name == "log.key" {
			fmt.Fprintf(u.stderr, "writ: note: the archive holds log.key: whoever reads it can sign in the ledger's name\n")
		}
		if entry.Typeflag != tar.TypeReg || !ledgerFile.MatchString(name) {
			continue
		}
		if err := u.file(entry, in); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// file writes one file of the ledger, which MUST be new and of the same directory as the
// others.
func (u *unpacking) file(entry *tar.Header, in io.Reader) error {
	from := path.Dir(path.Clean(entry.Name))
	if u.files > 0 && from != u.from {
		return fmt.Errorf("the archive holds a ledger in %q and another in %q", u.from, from)
	}
	u.from, u.files = from, u.files+1
	if entry.Size > u.left {
		return fmt.Errorf("more than %d bytes", int64(maxUnpackedBytes))
	}
	u.left -= entry.Size
	out, err := os.OpenFile(filepath.Join(u.dir, path.Base(entry.Name)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, entry.Size))
	return errors.Join(err, out.Close())
}
