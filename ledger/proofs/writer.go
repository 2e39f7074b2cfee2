// SPDX-License-Identifier: Apache-2.0

package proofs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
)

// Bounds of a bundle.
const (
	maxKey         = 4096
	maxLedgers     = 10_000
	maxManifest    = 8 << 20
	maxConsistency = len("old \n") + 20 + 128*45 + 1 + ledger.MaxNoteBytes
)

const manifestName = "export.json"

// Manifest says what was exported. Nobody signed it: it is the exporter's word.
type Manifest struct {
	// Version of the form of bundles: 1.
	Version int `json:"version"`
	// Program that exported, and when.
	Program string `json:"program"`
	Time    string `json:"time"`
	// Filter is the RecordFilter that selected the records, in its JSON form.
	Filter json.RawMessage `json:"filter"`
	// Format of the data beside the bundle, the base name of its file, and its digest.
	Format     string `json:"format"`
	Data       string `json:"data"`
	DataSHA256 string `json:"data_sha256"`
	// Records in the bundle, and in which ledgers: the Writer counts them.
	Records uint64           `json:"records"`
	Ledgers []ManifestLedger `json:"ledgers"`
}

// ManifestLedger is a ledger of a bundle.
type ManifestLedger struct {
	Origin  string `json:"origin"`
	Records uint64 `json:"records"`
}

// bytes is the manifest as it stands in a bundle.
func (m Manifest) bytes() ([]byte, error) {
	out, err := json.MarshalIndent(m, "", "  ")
	return append(out, '\n'), err
}

// Writer writes a bundle. It is for one goroutine.
type Writer struct {
	out     io.Writer
	ledgers []ManifestLedger
	records uint64
	head    []byte
	next    uint64
}

// NewWriter returns a writer of a bundle that is not compressed.
func NewWriter(w io.Writer) *Writer { return &Writer{out: w} }

func (w *Writer) entry(name string, content []byte) error {
	top, err := header(name, int64(len(content)))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	for _, part := range [][]byte{top, content, make([]byte, padding(int64(len(content))))} {
		if _, err := w.out.Write(part); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func ledgerName(number int, name string) string { return fmt.Sprintf("%06d/%s", number, name) }

func recordName(number int, index uint64, ending string) string {
	return ledgerName(number, fmt.Sprintf("%020d.%s", index, ending))
}

// Older is a head that was kept elsewhere, and the path that shows that a ledger goes on
// from it.
type Older struct {
	Head ledger.Head
	Path [][]byte
}

// Ledger begins a ledger, whose key and signed head MUST verify. Ledgers come by origin.
// Where older is not nil, it MUST show that the ledger goes on from it.
func (w *Writer) Ledger(vkey string, head []byte, older *Older) error {
	key, err := keyOf(vkey)
	if err != nil {
		return err
	}
	of, err := ledger.OpenSole(head, key)
	if err != nil {
		return err
	}
	n := len(w.ledgers)
	if n >= maxLedgers || n > 0 && w.ledgers[n-1].Origin >= of.Origin {
		return fmt.Errorf("the ledger %s is out of order, or one of more than %d", of.Origin, maxLedgers)
	}
	w.ledgers, w.head, w.next = append(w.ledgers, ManifestLedger{Origin: of.Origin}), head, 0
	if err := errors.Join(w.entry(ledgerName(n, "log.vkey"), []byte(vkey+"\n")), w.entry(ledgerName(n, "checkpoint"), head)); err != nil {
		return err
	}
	if older == nil {
		return nil
	}
	if err := ledger.VerifyConsistency(older.Head, of, older.Path); err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrFork, err)
	}
	return errors.Join(w.entry(ledgerName(n, "older"), older.Head.AppendText(nil)),
		w.entry(ledgerName(n, "consistency"), older.append(head)))
}

// keyOf reads a key in its one form.
func keyOf(vkey string) (note.Verifier, error) {
	key, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("the ledger's key: %w", err)
	}
	if !strings.HasPrefix(vkey, fmt.Sprintf("%s+%08x+", key.Name(), key.KeyHash())) {
		return nil, errors.New("the ledger's key is not written in its one form")
	}
	return key, nil
}

// Record adds a record of the ledger that was begun last, in the ledger's order.
func (w *Writer) Record(p ledger.Proven) error {
	n := len(w.ledgers) - 1
	if n < 0 || p.Index < w.next {
		return fmt.Errorf("record %d is out of order", p.Index)
	}
	w.next, w.records = p.Index+1, w.records+1
	w.ledgers[n].Records++
	proof := ledger.Inclusion{Index: p.Index, Path: p.Path, Head: w.head}.AppendText(nil)
	return errors.Join(w.entry(recordName(n, p.Index, "record"), p.Record), w.entry(recordName(n, p.Index, "tlog-proof"), proof))
}

// Close ends the bundle with its manifest, whose version and counts it fills in. It does
// not close what the bundle is written to.
func (w *Writer) Close(m Manifest) error {
	m.Version, m.Records, m.Ledgers = version, w.records, append([]ManifestLedger{}, w.ledgers...)
	content, err := m.bytes()
	if err != nil {
		return fmt.Errorf("write %s: %w", manifestName, err)
	}
	if err := w.entry(manifestName, content); err != nil {
		return err
	}
	_, err = w.out.Write(make([]byte, 2*block))
	return err
}

const version = 1

// append is the body of a request of C2SP tlog-witness.
func (o Older) append(head []byte) []byte {
	out := append([]byte("old "), strconv.FormatUint(o.Head.Size, 10)...)
	out = append(out, '\n')
	for _, hash := range o.Path {
		out = base64.StdEncoding.AppendEncode(out, hash)
		out = append(out, '\n')
	}
	return append(append(out, '\n'), head...)
}

// parseOlder reads the path from an older head to a signed one.
func parseOlder(older ledger.Head, text, head []byte) (Older, error) {
	out := Older{Head: older}
	top, _, _ := bytes.Cut(text, []byte("\n\n"))
	for _, line := range strings.Split(string(top), "\n")[1:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(hash) != 32 {
			return out, errors.New("a line of its path is no hash")
		}
		out.Path = append(out.Path, hash)
	}
	if !bytes.Equal(out.append(head), text) {
		return out, errors.New("it is no request of C2SP tlog-witness about the two heads")
	}
	return out, nil
}
