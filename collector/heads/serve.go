// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/transparency-dev/tessera/api/layout"
)

// resource is a path of C2SP tlog-tiles, and the level or "entries" in it: tile/L/N and
// tile/entries/N, whole or, of width W, tile/L/N.p/W.
var resource = regexp.MustCompile(`^tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?$`)

// Handler serves the log's checkpoint, tiles and entries, and nothing else of its
// directory, as C2SP tlog-tiles says. Whoever reaches it reads the names, sizes and times
// of all ledgers.
func (l *Log) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{path...}", l.serve)
	return mux
}

func (l *Log) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case path == layout.CheckpointPath:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
	case resource.MatchString(path):
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	default:
		http.NotFound(w, r)
		return
	}
	root, err := os.OpenRoot(l.options.Dir)
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	defer root.Close() //nolint:errcheck // read only
	file, err := root.Open(path)
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	defer file.Close() //nolint:errcheck // read only
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// refuse answers what is not there, which a log that is being read may well be asked for,
// and what could not be read.
func (l *Log) refuse(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Del("Cache-Control")
	if errors.Is(err, fs.ErrNotExist) {
		http.NotFound(w, r)
		return
	}
	l.options.Log.ErrorContext(r.Context(), "a part of the log was not read", "path", r.URL.Path, "error", err)
	http.Error(w, "it cannot be read now", http.StatusInternalServerError)
}
