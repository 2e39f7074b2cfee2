// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-dev/writ/ledger/archive"
)

// packed is a tar archive of entries, by gzip.
func packed(t testing.TB, entries ...tar.Header) []byte {
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
	return out.Bytes()
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
			unpacked, err := archive.Unpack(t.Context(), bytes.NewReader(packed(t, tc.entries...)))
			dir := ""
			if err == nil {
				dir = unpacked.Dir
				if unpacked.PrivateKey != strings.Contains(tc.name, "no file of a ledger") {
					t.Errorf("a private key: %v", unpacked.PrivateKey)
				}
			}
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

// A sparse file of a few bytes may become one of any size.
func TestASparseFileIsRefused(t *testing.T) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	content := append([]byte("0\n"), make([]byte, 510)...) // the map: no data at all
	if err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: "00000001-00000000000000000000.dlog", Size: int64(len(content)), Mode: 0o600, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"XNU.sparse.major": "1", "XNU.sparse.minor": "0", "XNU.sparse.realsize": "1000000"},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The writer of Go makes none, so its records are renamed.
	sparse := bytes.ReplaceAll(out.Bytes(), []byte("XNU.sparse"), []byte("GNU.sparse"))
	if _, err := archive.Unpack(t.Context(), bytes.NewReader(sparse)); err == nil || !strings.Contains(err.Error(), "a sparse file") {
		t.Errorf("error %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	const segment = "00000001-00000000000000000000.dlog"
	for _, name := range []string{"l/" + segment, "../" + segment, "l/log.vkey"} {
		text := packed(f, tar.Header{Typeflag: tar.TypeReg, Name: name})
		in, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			f.Fatal(err)
		}
		plain, err := io.ReadAll(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		around := t.TempDir()
		t.Setenv("TMPDIR", around)
		unpacked, err := archive.Unpack(t.Context(), bytes.NewReader(text))
		entries, readErr := os.ReadDir(around)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if err != nil && len(entries) > 0 || err == nil && (len(entries) != 1 || filepath.Join(around, entries[0].Name()) != unpacked.Dir) {
			t.Fatalf("%v: %v in the directory around", err, entries)
		}
		if err != nil {
			return
		}
		files, err := os.ReadDir(unpacked.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if name := file.Name(); name != "log.vkey" && !strings.Contains(name, ".dlog") || !file.Type().IsRegular() {
				t.Fatalf("%s is unpacked", file.Name())
			}
		}
	})
}
