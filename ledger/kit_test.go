// SPDX-License-Identifier: Apache-2.0

package ledger // white box: a test kit has keys, times and segments of its own choice

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

var update = flag.Bool("update", false, "write the test kit again")

// kit is the directory of the vectors, whose form docs/audit.md describes.
const kit = "testdata/kit"

// vector is a file of the kit: fields, and bytes that a reader takes or refuses.
type vector struct {
	name    string
	fields  map[string]string
	payload []byte
}

// fieldOrder is how a vector's fields stand in its file; a field that is not in it is
// a mistake.
var fieldOrder = []string{
	"comment", "kind", "expect", "needs", "origin", "vkey", "index", "leaf", "records", "heads", "size", "root", "commit-key", "path", "salt", "digest",
}

func (v vector) text() string {
	var b strings.Builder
	for _, name := range fieldOrder {
		if value, ok := v.fields[name]; ok {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	b.WriteByte('\n')
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(v.payload)), 76) {
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

func parseVector(name, text string) (vector, error) {
	head, body, ok := strings.Cut(text, "\n\n")
	v := vector{name: name, fields: map[string]string{}}
	for line := range strings.SplitSeq(head, "\n") {
		key, value, named := strings.Cut(line, ": ")
		if !named || !slices.Contains(fieldOrder, key) || v.fields[key] != "" {
			return v, fmt.Errorf("%s: not a field: %q", name, line)
		}
		v.fields[key] = value
	}
	if !ok {
		body = ""
	}
	var err error
	v.payload, err = base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(body, "\n", ""))
	return v, err
}

func readKit(t *testing.T) []vector {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(kit, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]vector, 0, len(names))
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := parseVector(strings.TrimSuffix(filepath.Base(name), ".txt"), string(text))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		t.Fatal("the kit is empty")
	}
	return out
}

// It runs before the tests that are parallel, which read what it writes.
func TestTheKitIsTheOneThatIsGenerated(t *testing.T) {
	want := map[string]string{}
	for _, v := range makeKit(t) {
		if _, twice := want[v.name]; twice {
			t.Fatalf("two vectors are called %s", v.name)
		}
		want[v.name+".txt"] = v.text()
	}
	if *update {
		if err := errors.Join(os.RemoveAll(kit), os.MkdirAll(kit, 0o755)); err != nil {
			t.Fatal(err)
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(kit, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(kit)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(kit, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if want[entry.Name()] != string(text) {
			t.Errorf("%s is not what is generated: review it, or run \"make golden\"", entry.Name())
		}
		delete(want, entry.Name())
	}
	for name := range maps.Keys(want) {
		t.Errorf("%s is missing: run \"make golden\"", name)
	}
}

// kinds says how our readers take a vector of a kind: what they find, by field, and the
// class of what is wrong.
var kinds = map[string]func(vector) (map[string]string, string){
	"record":     runRecord,
	"segment":    runSegment,
	"checkpoint": runCheckpoint,
	"receipt":    runReceipt,
	"commitment": runCommitment,
	"entry":      runEntry,
}

func TestOurReadersTakeTheKitAsItExpects(t *testing.T) {
	t.Parallel()
	for _, v := range readKit(t) {
		run := kinds[v.fields["kind"]]
		if run == nil {
			t.Errorf("%s: unknown kind %q", v.name, v.fields["kind"])
			continue
		}
		found, class := run(v)
		if class != v.fields["expect"] {
			t.Errorf("%s: %s, want %s", v.name, class, v.fields["expect"])
		}
		for field, value := range found {
			if v.fields[field] != value {
				t.Errorf("%s: %s is %s, want %s", v.name, field, value, v.fields[field])
			}
		}
	}
}

// classOf sorts errors as docs/audit.md does.
func classOf(err error) string {
	switch {
	case err == nil:
		return "valid"
	case errors.Is(err, errTorn):
		return "frame"
	case errors.Is(err, ErrRecord):
		return "record"
	case errors.Is(err, ErrHead):
		return "head"
	default:
		return "structure"
	}
}

func runRecord(v vector) (map[string]string, string) {
	index, err := strconv.ParseUint(v.fields["index"], 10, 64)
	if err != nil {
		return nil, err.Error()
	}
	if _, err = CheckRecord(v.payload, LogID(v.fields["origin"]), index); err != nil {
		return nil, classOf(err)
	}
	leaf := newHasher().leaf(v.payload)
	return map[string]string{"leaf": hex.EncodeToString(leaf[:])}, "valid"
}

// runEntry reads an entry of a collector's log, which the ledger's own code never does.
func runEntry(v vector) (map[string]string, string) {
	entry := &writv1.LogEntry{}
	if err := canonical.Unmarshal(v.payload, entry); err != nil || entry.GetWhat() == nil {
		return nil, "entry"
	}
	leaf := newHasher().leaf(v.payload)
	return map[string]string{"leaf": hex.EncodeToString(leaf[:])}, "valid"
}

func runSegment(v vector) (map[string]string, string) {
	key, err := note.NewVerifier(v.fields["vkey"])
	if err != nil {
		return nil, err.Error()
	}
	report := VerifySegment(v.name, strings.NewReader(string(v.payload)), key)
	if report.Fault != nil {
		return nil, classOf(report.Fault.What)
	}
	return map[string]string{
		"records": strconv.FormatUint(report.Records, 10), "heads": strconv.FormatUint(report.Heads, 10),
		"size": strconv.FormatUint(report.Size, 10), "root": hex.EncodeToString(report.Root[:]),
	}, "valid"
}

func runCheckpoint(v vector) (map[string]string, string) {
	key, err := note.NewVerifier(v.fields["vkey"])
	if err != nil {
		return nil, err.Error()
	}
	head, err := OpenHead(v.payload, key)
	if err != nil {
		return nil, classOf(err)
	}
	return map[string]string{"origin": head.Origin, "size": strconv.FormatUint(head.Size, 10), "root": hex.EncodeToString(head.Root[:])}, "valid"
}

func runReceipt(v vector) (map[string]string, string) {
	key, err := note.NewVerifier(v.fields["vkey"])
	if err != nil {
		return nil, err.Error()
	}
	record, head, err := VerifyReceipt(v.payload, key)
	if errors.Is(err, ErrReceipt) {
		return nil, "receipt"
	}
	if err != nil {
		return nil, err.Error()
	}
	return map[string]string{
		"index": strconv.FormatUint(record.GetIndex(), 10), "size": strconv.FormatUint(head.Size, 10), "root": hex.EncodeToString(head.Root[:]),
	}, "valid"
}

func runCommitment(v vector) (map[string]string, string) {
	commitKey, err1 := hex.DecodeString(v.fields["commit-key"])
	index, err2 := strconv.ParseUint(v.fields["index"], 10, 64)
	salt, err3 := Salt(commitKey, LogID(v.fields["origin"]), index, v.fields["path"])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err.Error()
	}
	digest := Commit(salt, LogID(v.fields["origin"]), v.fields["path"], v.payload)
	return map[string]string{"salt": hex.EncodeToString(salt), "digest": hex.EncodeToString(digest)}, "valid"
}

// kitKey makes the key of a name, the same each time. Nobody MUST sign with it.
func kitKey(t *testing.T, name string) (note.Signer, note.Verifier, string) {
	t.Helper()
	seed := sha256.Sum256([]byte("writ test kit: " + name))
	vkey, err := note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	secret := base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...))
	signer, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, verifier.KeyHash(), secret))
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier, vkey
}
