// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Limits bounds what is read of a directory. Zero takes the default.
type Limits struct {
	// Files is how many files. Default: 4,096.
	Files int
	// FileBytes bounds one file, TotalBytes all. Defaults: 16 MiB, 64 MiB.
	FileBytes, TotalBytes int64
	// Depth is how deep the folders go. Default: 16.
	Depth int
}

func (l Limits) orDefaults() Limits {
	if l.Files == 0 {
		l.Files = 4096
	}
	if l.FileBytes == 0 {
		l.FileBytes = 16 << 20
	}
	if l.TotalBytes == 0 {
		l.TotalBytes = 64 << 20
	}
	if l.Depth == 0 {
		l.Depth = 16
	}
	return l
}

const (
	manifestFile  = "bundle.yaml"
	catalogueFile = "catalogue.yaml"
	protoFolder   = "protos"
)

// linesEnding is that of files with a JSON value on each line.
const linesEnding = ".ndjson"

// folders are the folders of a bundle, with the endings of the files in them.
var folders = [...]struct {
	name    string
	endings []string
}{
	{protoFolder, []string{".proto"}},
	{"grants", []string{".yaml"}},
	{"checks", []string{".yaml"}},
	{"risk", []string{".yaml"}},
	{"approvals", []string{".yaml"}},
	{"budgets", []string{".yaml"}},
	{"limits", []string{".yaml"}},
	{"contracts", []string{".yaml"}},
	{"scenarios", []string{".yaml", linesEnding}},
	{"tests", []string{".yaml"}},
}

// contents are the files of a bundle by path, as they were read.
type contents map[string][]byte

// names returns the paths in a folder, sorted.
func (c contents) names(folder string) []string {
	var found []string
	for name := range c {
		if strings.HasPrefix(name, folder+"/") {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// digest is SHA-256 over the files in the order of their paths: path and content
// of each, after their lengths, so that no two bundles are told alike.
func (c contents) digest() [32]byte {
	sum := sha256.New()
	sum.Write([]byte("writ.bundle.v1\n"))
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	slices.Sort(names)
	var length [8]byte
	for _, name := range names {
		for _, part := range [...][]byte{[]byte(name), c[name]} {
			binary.BigEndian.PutUint64(length[:], uint64(len(part)))
			sum.Write(length[:])
			sum.Write(part)
		}
	}
	return [32]byte(sum.Sum(nil))
}

// reader reads a directory within limits. It never leaves the directory: links
// are followed by [os.Root] only as far as they stay inside.
type reader struct {
	root     *os.Root
	limits   Limits
	files    contents
	total    int64
	problems []Problem
}

// readDir reads the files of a bundle.
func readDir(dir string, limits Limits) (contents, []Problem, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the bundle: %w", err)
	}
	defer root.Close()
	r := &reader{root: root, limits: limits.orDefaults(), files: contents{}}
	r.top()
	for _, folder := range folders {
		r.folder(folder.name, folder.endings, 1)
	}
	return r.files, r.problems, nil
}

func (r *reader) problem(name, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: name, Message: fmt.Sprintf(format, args...)})
}

// top reads the files at the root. Another YAML file there is a mistake that
// would go unseen; other files and folders belong to others, such as programs.
func (r *reader) top() {
	r.file(manifestFile)
	for _, entry := range r.entries(".") {
		name := entry.Name()
		switch {
		case name == manifestFile:
		case name == catalogueFile:
			r.file(name)
		case strings.HasSuffix(name, ".yaml"), strings.HasSuffix(name, ".yml"):
			r.problem(name, "a bundle has no such file; grants, checks, risk, approvals, budgets, limits, contracts, tests and scenarios stand in their folders")
		}
	}
}

// folder reads a folder and those below it.
func (r *reader) folder(name string, endings []string, depth int) {
	if depth > r.limits.Depth {
		r.problem(name, "folders are nested deeper than %d", r.limits.Depth)
		return
	}
	for _, entry := range r.entries(name) {
		inner := path.Join(name, entry.Name())
		info, err := r.root.Stat(inner)
		switch {
		case strings.HasPrefix(entry.Name(), "."):
		case err != nil:
			r.problem(inner, "the file cannot be read: %v", cause(err))
		case info.IsDir():
			r.folder(inner, endings, depth+1)
		case !slices.Contains(endings, path.Ext(entry.Name())):
			r.problem(inner, "files here end in %s; move this one elsewhere or rename it", strings.Join(endings, " or "))
		default:
			r.file(inner)
		}
	}
}

// entries lists a folder in the order of names. A folder that is not there is empty.
func (r *reader) entries(name string) []fs.DirEntry {
	folder, err := r.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		r.problem(name, "the folder cannot be read: %v", cause(err))
		return nil
	}
	defer folder.Close()
	entries, err := folder.ReadDir(r.limits.Files + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		r.problem(name, "the folder cannot be read: %v", cause(err))
	}
	if len(entries) > r.limits.Files {
		r.problem(name, "the folder has more than %d files", r.limits.Files)
		return nil
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries
}

// file reads one regular file.
func (r *reader) file(name string) {
	if len(r.files) >= r.limits.Files {
		r.problem(name, "the bundle has more than %d files", r.limits.Files)
		return
	}
	// Before it is opened: opening a named pipe would wait for its writer.
	info, err := r.root.Stat(name)
	if err != nil {
		r.problem(name, "the file cannot be read: %v", cause(err))
		return
	}
	if !info.Mode().IsRegular() {
		r.problem(name, "this is not a regular file")
		return
	}
	text, err := r.read(name)
	if err != nil {
		r.problem(name, "the file cannot be read: %v", cause(err))
		return
	}
	r.total += int64(len(text))
	if int64(len(text)) > r.limits.FileBytes || r.total > r.limits.TotalBytes {
		r.problem(name, "a file has at most %d bytes and a bundle %d", r.limits.FileBytes, r.limits.TotalBytes)
		return
	}
	r.files[name] = text
}

func (r *reader) read(name string) ([]byte, error) {
	file, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, r.limits.FileBytes+1))
}

// cause strips the path, which the problem names already.
func cause(err error) error {
	var inner *fs.PathError
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

// protos is the folder protos as a file system, for the compiler: it sees the
// bytes that were read and digested, not what may stand there by then.
type protos contents

// Open opens a file of the folder.
func (p protos) Open(name string) (fs.File, error) {
	text, ok := p[protoFolder+"/"+name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &protoFile{Reader: bytes.NewReader(text), name: path.Base(name)}, nil
}

// protoFile is an open file of the folder protos, and its own [fs.FileInfo].
type protoFile struct {
	*bytes.Reader
	name string
}

// Stat returns the file's info.
func (f *protoFile) Stat() (fs.FileInfo, error) { return f, nil }

// Close does nothing.
func (f *protoFile) Close() error { return nil }

// Name returns the last element of the path.
func (f *protoFile) Name() string { return f.name }

// Size returns the length in bytes.
func (f *protoFile) Size() int64 { return f.Reader.Size() }

// Mode returns that of a file that is only read.
func (f *protoFile) Mode() fs.FileMode { return 0o444 }

// ModTime returns the zero time.
func (f *protoFile) ModTime() time.Time { return time.Time{} }

// IsDir returns false.
func (f *protoFile) IsDir() bool { return false }

// Sys returns nothing.
func (f *protoFile) Sys() any { return nil }
