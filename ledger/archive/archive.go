// SPDX-License-Identifier: Apache-2.0

// Package archive takes a ledger out of a tar archive of its directory, so that it can be
// verified as if it lay there.
//
// It promises that everything is bounded, files and bytes; that nothing is written but
// regular files of the names that a ledger has, into a new directory of its own; and that
// an archive of two ledgers, or with a file twice or sparse, is refused. It verifies
// nothing: ledger.Verify does.
//
//	unpacked, err := archive.Unpack(ctx, file)
//	defer os.RemoveAll(unpacked.Dir)
//	report, err := ledger.Verify(unpacked.Dir, key)
package archive

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
	"strings"

	"github.com/writ-dev/writ/ledger/proofs"
)

// Bounds of an archive.
const (
	maxFiles = 100_000
	maxBytes = 16 << 30
)

// file is the name of a file that verifying a ledger reads.
var file = regexp.MustCompile(`^(log\.vkey|[0-9]{8,20}-[0-9]{20}\.dlog(\.tmp)?)$`)

// Unpacked is a ledger that was taken out of an archive.
type Unpacked struct {
	// Dir has its segments and its public key. The caller removes it.
	Dir string
	// PrivateKey says that the archive holds log.key, which was not taken out: whoever
	// reads the archive can sign in the ledger's name.
	PrivateKey bool
}

// Unpack takes the segments and the public key of a ledger out of a tar archive,
// compressed by gzip or zstd or not. Of the names in it only the last part is used, and
// only where it is one of a ledger's files.
func Unpack(ctx context.Context, archive io.Reader) (*Unpacked, error) {
	dir, err := os.MkdirTemp("", "writ-ledger-")
	if err != nil {
		return nil, err
	}
	u := &unpacking{Unpacked: Unpacked{Dir: dir}, left: maxBytes}
	in, err := proofs.Decompress(archive)
	if err == nil {
		err = errors.Join(u.all(ctx, tar.NewReader(in)), in.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpack a ledger: %w", err), os.RemoveAll(dir))
	}
	return &u.Unpacked, nil
}

// unpacking is a run of Unpack.
type unpacking struct {
	Unpacked

	from  string // directory in the archive
	files int
	left  int64 // bytes
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
		case seen >= maxFiles:
			return fmt.Errorf("more than %d entries", maxFiles)
		}
		name := path.Base(entry.Name)
		u.PrivateKey = u.PrivateKey || name == "log.key"
		if entry.Typeflag != tar.TypeReg || !file.MatchString(name) {
			continue
		}
		for key := range entry.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return fmt.Errorf("%s: a sparse file, which is larger than what the archive has of it", name)
			}
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
		return fmt.Errorf("more than %d bytes", int64(maxBytes))
	}
	u.left -= entry.Size
	out, err := os.OpenFile(filepath.Join(u.Dir, path.Base(entry.Name)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, entry.Size))
	return errors.Join(err, out.Close())
}
