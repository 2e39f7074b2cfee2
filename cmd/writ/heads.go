// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/renameio/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
)

// keptHead is a head that somebody kept elsewhere than where the ledger is.
type keptHead struct {
	file string
	head ledger.Head
	note []byte
}

// readHeads reads files of heads: C2SP checkpoints, or the three lines of one without
// a signature. There is one of a ledger at most.
func readHeads(paths []string) (map[string]keptHead, error) {
	out := make(map[string]keptHead, len(paths))
	for _, path := range paths {
		text, err := readBounded(path, ledger.MaxNoteBytes)
		if err != nil {
			return nil, fmt.Errorf("--head: %w", err)
		}
		top, _, signed := bytes.Cut(text, []byte("\n\n"))
		if signed {
			top = append(bytes.Clone(top), '\n')
		}
		head, err := ledger.ParseHead(string(top))
		if err != nil {
			return nil, hinted(fmt.Errorf("--head %s: %w", path, err), "\"writ verify --save-head FILE\" writes one")
		}
		if _, twice := out[head.Origin]; twice {
			return nil, fmt.Errorf("--head: two heads of %s", head.Origin)
		}
		out[head.Origin] = keptHead{file: path, head: head, note: text}
	}
	return out, nil
}

// signedBy says whether a ledger's key signed the head. That it bears a signature of that
// key which is wrong is an error: nobody kept that.
func (k keptHead) signedBy(v note.Verifier) (bool, error) {
	_, err := note.Open(k.note, note.VerifierList(v))
	var wrong *note.InvalidSignatureError
	if errors.As(err, &wrong) {
		return false, fmt.Errorf("--head %s: %w", k.file, err)
	}
	return err == nil, nil
}

// saveHead writes the head of a ledger for somebody to keep.
func saveHead(path string, found *verification) error {
	switch {
	case !found.Verified:
		return nil
	case len(found.Ledgers) != 1 || found.Ledgers[0].Head == "":
		return hinted(fmt.Errorf("--save-head: %d ledgers, and one head has room in a file", len(found.Ledgers)), "--output json prints each one's head")
	}
	if err := renameio.WriteFile(path, []byte(found.Ledgers[0].Head), 0o644); err != nil {
		return fmt.Errorf("--save-head: %w", err)
	}
	return nil
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the caller names it
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return text, err
}
