// SPDX-License-Identifier: Apache-2.0

package heads_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/collector/heads"
	"github.com/writ-dev/writ/ledger"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entries are a source that grows.
type entries struct {
	mu     sync.Mutex
	all    [][]byte
	stored chan struct{}
}

func newEntries(n int) *entries {
	e := &entries{stored: make(chan struct{})}
	e.grow(n)
	return e
}

// grow adds n entries.
func (e *entries) grow(n int) {
	e.growUnheard(n)
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.stored)
	e.stored = make(chan struct{})
}

// growUnheard adds n entries and tells nobody.
func (e *entries) growUnheard(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for range n {
		e.all = append(e.all, fmt.Appendf(nil, "entry %d", len(e.all)))
	}
}

// with is a copy with one entry changed, or cut behind a size.
func (e *entries) with(at int, text string) *entries {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &entries{all: append([][]byte(nil), e.all...), stored: make(chan struct{})}
	if text == "" {
		c.all = c.all[:at]
	} else {
		c.all[at] = []byte(text)
	}
	return c
}

func (e *entries) Entries(_ context.Context, from uint64, most int) ([][]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[min(int(from), len(e.all)):min(int(from)+most, len(e.all))], nil //nolint:gosec // small
}

func (e *entries) EntryCount(context.Context) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return uint64(len(e.all)), nil
}

func (e *entries) Stored() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stored
}

// place is where a log is, and its key.
type place struct {
	dir    string
	signer note.Signer
	key    note.Verifier
	policy []byte
	log    *slog.Logger
}

func newPlace(t *testing.T) *place {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, "test.example/collector/log")
	if err != nil {
		t.Fatal(err)
	}
	p := &place{dir: t.TempDir()}
	if p.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	if p.key, err = note.NewVerifier(vkey); err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs the log over a source until the result is called.
func (p *place) run(t *testing.T, source heads.Source) (l *heads.Log, stop func()) {
	t.Helper()
	l, err := heads.New(heads.Options{Dir: p.dir, Signer: p.signer, Source: source, Interval: 100 * time.Millisecond, Policy: p.policy, Log: p.log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	return l, func() {
		cancel()
		<-done
	}
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// size is that of the published checkpoint.
func (p *place) size(t *testing.T) uint64 {
	t.Helper()
	head, err := ledger.OpenHead(p.checkpoint(t), p.key)
	if err != nil {
		return 0
	}
	return head.Size
}

func (p *place) checkpoint(t *testing.T) []byte {
	t.Helper()
	raw, err := heads.ReadCheckpoint(filepath.Join(p.dir, "checkpoint"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return raw
}

func (p *place) verify(t *testing.T, source heads.Source, kept ...[]byte) *heads.Report {
	t.Helper()
	report, err := heads.Verify(t.Context(), heads.Evidence{Dir: p.dir, Key: p.key, Source: source, Kept: kept, Policy: p.policy})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// full is a log of n entries that was stopped.
func full(t *testing.T, n int) (*place, *entries) {
	t.Helper()
	p, source := newPlace(t), newEntries(n)
	_, stop := p.run(t, source)
	await(t, "all entries are under a checkpoint", func() bool { return p.size(t) == uint64(n) }) //nolint:gosec // small
	stop()
	return p, source
}

func TestEachEntryStandsInItsPlaceOnceThoughTheLogStopsAndStarts(t *testing.T) {
	t.Parallel()
	p, source := newPlace(t), newEntries(3)
	var kept [][]byte
	for round := range 4 {
		source.grow(200 * round) // while nothing runs
		l, stop := p.run(t, source)
		for range 5 {
			source.grow(7)
			want, _ := source.EntryCount(t.Context())
			await(t, "all entries are under a checkpoint", func() bool { return p.size(t) == want })
		}
		source.growUnheard(9) // the end takes up what is left
		want, _ := source.EntryCount(t.Context())
		stop()
		if err := l.Err(); err != nil {
			t.Fatal(err)
		}
		report := p.verify(t, source, kept...)
		if report.Fault != nil || report.Size != want || report.Pending != 0 || report.Signatures != 1 || report.Origin != p.key.Name() {
			t.Fatalf("round %d: Verify = %+v, want size %d", round, report, want)
		}
		kept = append(kept, p.checkpoint(t))
	}
}

func TestALogThatIsNotTheStoresIsNotGoneOnWith(t *testing.T) {
	t.Parallel()
	p, source := full(t, 300)
	for name, other := range map[string]*entries{
		"an entry is another": source.with(299, "x"), "the store has less": source.with(200, ""),
	} {
		other.grow(5)
		if name == "the store has less" {
			other = source.with(200, "")
		}
		l, stop := p.run(t, other)
		await(t, "the log says so", func() bool { return l.Err() != nil })
		stop()
		if !errors.Is(l.Err(), heads.ErrDiffers) || p.size(t) != 300 {
			t.Errorf("%s: Err = %v, size %d", name, l.Err(), p.size(t))
		}
	}
	if report := p.verify(t, source); report.Fault != nil {
		t.Errorf("the log was changed: %v", report.Fault)
	}
}

// said is a log that tests wait for.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

func TestALogThatIsTakenAwayFallsBehindAndCatchesUp(t *testing.T) {
	t.Parallel()
	p, source, heard := newPlace(t), newEntries(5), &said{}
	p.dir = filepath.Join(p.dir, "tiles")
	p.log = slog.New(slog.NewTextHandler(heard, nil))
	_, stop := p.run(t, source)
	defer stop()
	await(t, "all entries are under a checkpoint", func() bool { return p.size(t) == 5 })
	if err := os.Rename(p.dir, p.dir+".away"); err != nil {
		t.Fatal(err)
	}
	source.grow(5)
	await(t, "the log says that it falls behind", func() bool { return heard.has("falls behind") })
	if err := os.Rename(p.dir+".away", p.dir); err != nil {
		t.Fatal(err)
	}
	await(t, "the log has caught up", func() bool { return p.size(t) == 10 })
	if report := p.verify(t, source); report.Fault != nil {
		t.Error(report.Fault)
	}
}

func TestVerifyFindsWhatWasChanged(t *testing.T) {
	t.Parallel()
	p, source := full(t, 300)
	good := p.checkpoint(t)
	signed := func(size uint64, root byte) []byte {
		raw, err := ledger.SignHead(ledger.Head{Origin: p.key.Name(), Size: size, Root: [32]byte{root}}, p.signer)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	change := func(name string, at int) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			path := filepath.Join(p.dir, filepath.FromSlash(name))
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			raw[(at+len(raw))%len(raw)] ^= 1
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			if err := os.RemoveAll(filepath.Join(p.dir, filepath.FromSlash(name))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		change func(*testing.T, *place)
		source *entries
		kept   []byte
		want   string
	}{
		{name: "an entry of the store", source: source.with(17, "x"), want: "entry 17 is another"},
		{name: "an entry is gone from the store's end", source: source.with(299, ""), want: "it has 300 entries, the store 299"},
		{name: "an entry of the log", change: change("tile/entries/000", 8), want: "entry 0 is another"},
		{name: "the newest entries of the log", change: change("tile/entries/001.p/44", 9), want: "entry 256 is another"},
		{name: "a tile", change: change("tile/0/000", 5), want: "tile 0 of level 0 is not"},
		{name: "the upper tile", change: change("tile/1/000.p/1", 5), want: "tile 0 of level 1 is not"},
		{name: "a bundle is gone", change: remove("tile/entries/000"), want: "the log's entries from 0"},
		{name: "the checkpoint's signature", change: change("checkpoint", -9), want: "the newest checkpoint"},
		{name: "the log's key signed another root", change: func(t *testing.T, p *place) {
			if err := os.WriteFile(filepath.Join(p.dir, "checkpoint"), signed(300, 1), 0o600); err != nil {
				t.Fatal(err)
			}
		}, want: "fork"},
		{name: "a kept checkpoint of another tree", kept: signed(100, 1), want: "fork"},
		{name: "a kept checkpoint of this size and another tree", kept: signed(300, 1), want: "fork"},
		{name: "a kept checkpoint of a longer log", kept: signed(301, 1), want: "rollback"},
		{name: "the checkpoint is gone, one was kept", change: remove("checkpoint"), kept: good, want: "rollback"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := &place{dir: t.TempDir(), key: p.key}
			if err := os.CopyFS(c.dir, os.DirFS(p.dir)); err != nil {
				t.Fatal(err)
			}
			kept := [][]byte{good}
			if tc.kept != nil {
				kept = [][]byte{tc.kept}
			}
			if tc.change != nil {
				tc.change(t, c)
			}
			if tc.source == nil {
				tc.source = source
			}
			if report := c.verify(t, tc.source, kept...); report.Fault == nil || !strings.Contains(report.Fault.Error(), tc.want) {
				t.Errorf("the fault is %v, want %q", report.Fault, tc.want)
			}
		})
	}
}

func TestTheLogIsServedToToolsOfOthers(t *testing.T) {
	t.Parallel()
	p, source := newPlace(t), newEntries(600)
	l, stop := p.run(t, source)
	defer stop()
	await(t, "all entries are under a checkpoint", func() bool { return p.size(t) == 600 })
	server := httptest.NewServer(l.Handler())
	defer server.Close()
	root, err := url.Parse(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	fetch, err := client.NewHTTPFetcher(root, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	check := fsck.New(p.key.Name(), p.key, fetch, func(raw []byte) ([][]byte, error) {
		var b api.EntryBundle
		err := b.UnmarshalText(raw)
		hashes := make([][]byte, len(b.Entries))
		for i := range b.Entries {
			hashes[i] = rfc6962.DefaultHasher.HashLeaf(b.Entries[i])
		}
		return hashes, err
	}, fsck.Opts{N: 2})
	if err := check.Check(t.Context()); err != nil {
		t.Errorf("Tessera's fsck over HTTP: %v", err)
	}
	for path, want := range map[string]int{
		"checkpoint": 200, "tile/entries/000": 200, "tile/0/001": 200, "tile/0/002.p/88": 200,
		"": 404, "tile": 404, "tile/0": 404, "tile/0/": 404, "tile/entries/009": 404, "tile/0/000.p": 404, "tile/0/000.p/256": 404, "tile/0/000.p/0": 404,
		"tile/64/000": 404, "tile/0/0": 404, "checkpoint/": 404, ".state/treeState": 404, "../log.key": 404, "tile/../.state/version": 404,
		"tile/0/%2e%2e/000": 404, "tile/entries/000%00": 404,
	} {
		if got := status(t, server, http.MethodGet, path); got != want {
			t.Errorf("GET /%s: %d, want %d", path, got, want)
		}
	}
	if got := status(t, server, http.MethodPost, "checkpoint"); got != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got)
	}
}

func TestEachEntryIsProven(t *testing.T) {
	t.Parallel()
	p, source := full(t, 300)
	e := heads.Evidence{Dir: p.dir, Key: p.key, Source: source}
	for _, index := range []uint64{0, 1, 255, 256, 299} {
		text, err := heads.Prove(t.Context(), e, index)
		if err != nil {
			t.Fatal(err)
		}
		entry := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "entry %d", index))
		if want := fmt.Sprintf("c2sp.org/tlog-proof@v1\nextra %s\nindex %d\n", entry, index); !strings.HasPrefix(string(text), want) || !strings.HasSuffix(string(text), "\n\n"+string(p.checkpoint(t))) {
			t.Errorf("the proof of entry %d is\n%s", index, text)
		}
	}
	if _, err := heads.Prove(t.Context(), e, 300); !errors.Is(err, heads.ErrPending) {
		t.Errorf("what is not there: %v", err)
	}
	e.Source = source.with(7, "x")
	if _, err := heads.Prove(t.Context(), e, 7); !errors.Is(err, heads.ErrDiffers) {
		t.Errorf("an entry that the log does not have: %v", err)
	}
}

// status asks a server for a path as it is written, and returns the answer's status.
func status(t *testing.T, server *httptest.Server, method, path string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = "/" + path // not cleaned
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read only
	if response.StatusCode == http.StatusOK && response.Header.Get("Cache-Control") == "" {
		t.Errorf("%s says nothing about caching", path)
	}
	if response.StatusCode == http.StatusTemporaryRedirect || response.StatusCode == http.StatusMovedPermanently {
		return http.StatusNotFound
	}
	return response.StatusCode
}

func FuzzTheHandlerServesNothingButTheLog(f *testing.F) {
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tiles", ".state"), 0o700); err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"log.key", "tiles/.state/treeState", "tiles/x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	skey, _, err := note.GenerateKey(rand.Reader, "test.example/log")
	if err != nil {
		f.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		f.Fatal(err)
	}
	l, err := heads.New(heads.Options{Dir: filepath.Join(dir, "tiles"), Signer: signer, Source: newEntries(0)})
	if err != nil {
		f.Fatal(err)
	}
	handler := l.Handler()
	for _, path := range []string{"/checkpoint", "/tile/0/000.p/1", "/tile/entries/x001/000", "/../log.key", "/.state/treeState", "//x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.URL = &url.URL{Path: path}
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		if strings.Contains(response.Body.String(), "secret") {
			t.Errorf("%q is served", path)
		}
	})
}
