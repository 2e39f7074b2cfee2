// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/reads"
	"github.com/writ-dev/writ/ledger"
)

// addReads verifies the collector's record of what was read, where there is one, with the
// key that is known of it or that lies beside it.
func (v *verifying) addReads(found *verification, known map[string]note.Verifier) error {
	dir := filepath.Join(v.store, reads.DirName)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	key, err := readVerifier(filepath.Join(dir, "log.vkey"))
	if err != nil {
		return err
	}
	if given := known[key.Name()]; given != nil {
		key = given
		delete(known, key.Name())
	}
	report, err := ledger.Verify(dir, key)
	if err != nil {
		return err
	}
	own, err := v.ofLedger(report, nil)
	if err != nil {
		return err
	}
	found.Ledgers, found.Verified = append(found.Ledgers, own.Ledgers...), found.Verified && own.Verified
	return nil
}
