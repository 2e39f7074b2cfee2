// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// manyDecisions is a ledger of so many decisions of about a kilobyte.
func manyDecisions(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: "example.org/agent/desk"})
	if err != nil {
		t.Fatal(err)
	}
	const process = writv1.Durability_DURABILITY_PROCESS
	if _, err := l.Append(t.Context(), ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_START, Body: &writv1.StartRecord{Origin: l.Origin()}}, process); err != nil {
		t.Fatal(err)
	}
	chance := rand.NewChaCha8([32]byte{}) // what does not shrink
	note := make([]byte, 350)
	for i := range n {
		_, _ = chance.Read(note)
		arguments := fmt.Appendf(nil, `{"note":"%x"}`, note)
		if err := l.AppendAsync(t.Context(), ledger.Entry{
			Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: "acme", DecisionID: append(make([]byte, 13), byte(i>>16), byte(i>>8), byte(i)),
			Body: &writv1.DecisionRecord{
				Surface: writv1.Surface_SURFACE_EXT_AUTHZ, Tool: "books.refund", Arguments: arguments,
				Principal: &writv1.Principal{User: "alice", Workload: "spiffe://example.org/desk", Tenant: "acme"},
				Decision:  &writv1.Decision{Verdict: writv1.Verdict_VERDICT_DENY, Reason: writv1.Reason_REASON_GRANT_MISSING},
			},
		}); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 { // the queue is bounded
			if _, err := l.Append(t.Context(), ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_HEARTBEAT, Body: &writv1.HeartbeatRecord{}}, process); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(&writv1.EndRecord{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ran runs a command of the program.
func ran(t testing.TB, args ...string) {
	t.Helper()
	cmd := newRoot()
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
}

func BenchmarkExport(b *testing.B) {
	const records = 20_000
	dir := manyDecisions(b, records)
	out := filepath.Join(b.TempDir(), "out")
	for _, format := range []string{"ndjson", "csv", "parquet", "ocsf", "cloudtrail"} {
		b.Run(format, func(b *testing.B) {
			for b.Loop() {
				ran(b, "records", "export", "--ledger", dir, "--format", format, "--out", out)
			}
			b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			for _, name := range []string{out, out + proofEnding} {
				info, err := os.Stat(name)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(info.Size())/records, "B/record-"+map[bool]string{true: "data", false: "proof"}[name == out])
			}
		})
	}
	ran(b, "records", "export", "--ledger", dir, "--out", out)
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			ran(b, "verify", "--export", out+proofEnding, "--data", out, "--key", filepath.Join(dir, "log.vkey"))
		}
		b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}

// liar is a collector that says what it likes.
type liar struct {
	query.Reader

	items []*writv1.ExportRecordsResponse
	err   error
}

func (l liar) Export(context.Context, *writv1.ExportRecordsRequest) query.Exported {
	return func(yield func(*writv1.ExportRecordsResponse, error) bool) {
		for _, item := range l.items {
			if !yield(item, nil) {
				return
			}
		}
		if l.err != nil {
			yield(nil, l.err)
		}
	}
}

func TestAnExportWritesNothingOfWhatIsNotProven(t *testing.T) {
	t.Parallel()
	reader, err := query.FromLedger(manyDecisions(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	var good []*writv1.ExportRecordsResponse
	for item, err := range reader.Export(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, item)
	}
	changed := func(at int, change func(*writv1.ExportRecordsResponse)) []*writv1.ExportRecordsResponse {
		items := slices.Clone(good)
		items[at] = proto.CloneOf(items[at])
		change(items[at])
		return items
	}
	odd := errors.New("the connection is gone")
	for _, tc := range []struct {
		name string
		from liar
		want string
	}{
		{"nothing odd", liar{items: good}, ""},
		{"it ends with an error", liar{items: good[:3], err: odd}, odd.Error()},
		{"a record before its ledger", liar{items: good[1:]}, "before its ledger"},
		{"a record twice", liar{items: append(slices.Clone(good[:2]), good[1:]...)}, "out of order"},
		{"a ledger twice", liar{items: append(slices.Clone(good[:1]), good...)}, "out of order"},
		{"a record that says something else", liar{items: changed(2, func(r *writv1.ExportRecordsResponse) {
			raw := r.GetRecord().GetRecord()
			r.GetRecord().Record = bytes.Replace(raw, []byte("acme"), []byte("evil"), 1)
		})}, "not a proof of inclusion"},
		{"a record that is none", liar{items: changed(2, func(r *writv1.ExportRecordsResponse) { r.GetRecord().Record = []byte{0xff} })}, "not a valid record"},
		{"a path that is short", liar{items: changed(2, func(r *writv1.ExportRecordsResponse) { r.GetRecord().Path = r.GetRecord().GetPath()[1:] })}, "not a proof of inclusion"},
		{"a head that is not signed", liar{items: changed(0, func(r *writv1.ExportRecordsResponse) { r.GetLedger().Head = []byte("x") })}, "not a signed head"},
		{"a key that is none", liar{items: changed(0, func(r *writv1.ExportRecordsResponse) { r.GetLedger().VerifierKey = "x" })}, "the key of a ledger"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			e := &exporting{format: "ndjson", out: filepath.Join(dir, "out"), proof: filepath.Join(dir, "out"+proofEnding), filter: &writv1.RecordFilter{}, stderr: io.Discard}
			err := e.write(t.Context(), tc.from)
			left, globErr := filepath.Glob(filepath.Join(dir, "*"))
			hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
			left = append(left, hidden...)
			switch {
			case globErr != nil:
				t.Fatal(globErr)
			case tc.want == "" && (err != nil || len(left) != 2):
				t.Errorf("%v, files %q", err, left)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || len(left) > 0):
				t.Errorf("%v, want %q; files %q, want none", err, tc.want, left)
			}
		})
	}
}

// The commands of these pages work where a ledger lies in "ledger" and a store in "store".
func TestTheCommandsOfThePagesOnExportsWork(t *testing.T) {
	t.Parallel()
	script := []byte("exec makeledger ledger\nexec makeledger other store\n")
	for _, page := range []string{"export.md", "verify.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		blocks := shell.FindAllSubmatch(text, -1)
		if len(blocks) < 2 {
			t.Errorf("%s has %d blocks of commands", page, len(blocks))
		}
		for _, block := range blocks {
			for line := range strings.Lines(string(block[1])) {
				script = append(script, "exec "+strings.TrimSpace(line)+"\n"...)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "pages.txt")
	if err := os.WriteFile(path, script, 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Files: []string{path}})
}
