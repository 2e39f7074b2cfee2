// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packed is a tar archive of entries, by gzip.
func packed(t testing.TB, entries ...tar.Header) string {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	w := tar.NewWriter(compressed)
	for _, entry := range entries {
		content := []byte("content")
		if entry.Typeflag == tar.TypeReg {
			entry.Size = int64(len(content))
		}
		entry.Mode = 0o777
		if err := w.WriteHeader(&entry); err != nil {
			t.Fatal(err)
		}
		if entry.Typeflag == tar.TypeReg {
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.tar.gz")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAnArchiveOfALedgerPutsNothingBesideItsDirectory(t *testing.T) {
	const segment = "00000001-00000000000000000000.dlog"
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	for _, tc := range []struct {
		name    string
		entries []tar.Header
		want    string // the error, or the files
	}{
		{"a ledger", []tar.Header{{Typeflag: tar.TypeDir, Name: "l/"}, file("l/log.vkey"), file("l/" + segment)}, segment + " log.vkey"},
		{"a ledger without a directory", []tar.Header{file("./log.vkey"), file("./" + segment)}, segment + " log.vkey"},
		{"names that lead out", []tar.Header{file("../../" + segment)}, segment},
		{"an absolute name", []tar.Header{file("/etc/" + segment)}, segment},
		{"what is no file of a ledger", []tar.Header{file(segment), file("passwd"), file("x.dlog"), file("log.key"), file(".."), file(segment + "/..")}, segment},
		{"links", []tar.Header{
			file(segment), {Typeflag: tar.TypeSymlink, Name: "log.vkey", Linkname: "/etc/passwd"}, {Typeflag: tar.TypeLink, Name: "00000002-00000000000000000000.dlog", Linkname: "/etc/passwd"},
		}, segment},
		{"a file twice", []tar.Header{file(segment), file(segment)}, "file exists"},
		{"two ledgers", []tar.Header{file("a/" + segment), file("b/log.vkey")}, "another in"},
		{"no ledger", []tar.Header{file("a/readme")}, "no segment"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			around := t.TempDir()
			t.Setenv("TMPDIR", around)
			dir, err := unpackLedger(t.Context(), packed(t, tc.entries...), &bytes.Buffer{})
			var names []string
			walked := filepath.Walk(around, func(path string, info os.FileInfo, err error) error {
				if err == nil && !info.IsDir() {
					names = append(names, info.Name())
					if filepath.Dir(path) != dir || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
						t.Errorf("%s, %v", path, info.Mode())
					}
				}
				return err
			})
			if walked != nil {
				t.Fatal(walked)
			}
			switch {
			case err != nil && (!strings.Contains(err.Error(), tc.want) || len(names) > 0):
				t.Errorf("%v, want %q; left %q", err, tc.want, names)
			case err == nil && strings.Join(names, " ") != tc.want:
				t.Errorf("files %q, want %q", names, tc.want)
			}
		})
	}
}
