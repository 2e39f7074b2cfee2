// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/writ-dev/writ/collector"
	"github.com/writ-dev/writ/collector/heads"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// logReport verifies the collector's own log by the store, and returns the entries that it
// is to have.
func (p *place) logReport(t *testing.T) (*heads.Report, []*writv1.LogEntry) {
	t.Helper()
	kept, err := store.OpenReadOnly(t.Context(), p.config.GetDataDir())
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close() //nolint:errcheck // read only
	dir := filepath.Join(p.config.GetDataDir(), heads.Dir)
	text, err := os.ReadFile(filepath.Join(dir, "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	report, err := heads.Verify(t.Context(), heads.Evidence{Dir: filepath.Join(dir, heads.TilesDir), Key: key, Source: kept})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := kept.Entries(t.Context(), 0, 256)
	if err != nil {
		t.Fatal(err)
	}
	entries := make([]*writv1.LogEntry, len(raw))
	for i := range raw {
		entries[i] = &writv1.LogEntry{}
		if err := canonical.Unmarshal(raw[i], entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	return report, entries
}

// wholeLog is the entries of a log that verifies and has all of them.
func (p *place) wholeLog(t *testing.T) []*writv1.LogEntry {
	t.Helper()
	report, entries := p.logReport(t)
	if report.Fault != nil || report.Pending != 0 || report.Size != uint64(len(entries)) {
		t.Fatalf("the log: %+v, want %d entries", report, len(entries))
	}
	return entries
}

func TestAStoreThatWasPutBackDoesNotGoOnInItsLog(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := p.agent(t, "agent", true)
	database, backup := filepath.Join(p.config.GetDataDir(), "store.db"), filepath.Join(p.dir, "backup")
	day := func() {
		collecting := p.collect(t)
		sending, _ := p.send(t, l)
		record(t, l, 30) // which waits for the acknowledgement
		sending()
		collecting()
	}
	day()
	copyFile(t, database, backup)
	day()
	size := len(p.wholeLog(t))
	copyFile(t, backup, database)
	day() // the agent sends again what was lost, and is acknowledged
	report, _ := p.logReport(t)
	if !errors.Is(report.Fault, heads.ErrDiffers) || report.Size != uint64(size) { //nolint:gosec // small
		t.Errorf("the log that is not the store's: %+v, want it as it was, of size %d", report, size)
	}
	if err := os.Rename(filepath.Join(p.config.GetDataDir(), heads.Dir), filepath.Join(p.dir, "old")); err != nil {
		t.Fatal(err)
	}
	day()
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	again, _ := p.logReport(t)
	if p.wholeLog(t); again.Origin == report.Origin {
		t.Errorf("the log that was begun anew is called %s too", again.Origin)
	}
	p.verified(t)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheLogKeepsItsNameAndItsKey(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.config.HeadLog.Origin = "log.test/desk"
	p.collect(t)()
	first, _ := p.logReport(t)
	p.collect(t)()
	second, _ := p.logReport(t)
	if first.Origin != second.Origin || !strings.HasPrefix(first.Origin, "log.test/desk/") || first.Fault != nil || second.Fault != nil {
		t.Errorf("the log is %+v, and then %+v", first, second)
	}
	info, err := os.Stat(filepath.Join(p.config.GetDataDir(), heads.Dir, "log.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log.key: %v, %v", info, err)
	}
	for name, change := range map[string]func(){
		"is log.test/other": func() { p.config.HeadLog.Origin = "log.test/other" },
		"witness policy": func() {
			p.config.HeadLog.Origin, p.config.HeadLog.WitnessPolicyFile = "", filepath.Join(p.dir, "policy")
			if err := os.WriteFile(p.config.GetHeadLog().GetWitnessPolicyFile(), []byte("witness x\nquorum x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		change()
		_, err := collector.New(t.Context(), collector.Options{
			Config: p.config, Credentials: insecure.NewCredentials(), Registry: prometheus.NewRegistry(), Clock: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: New = %v", name, err)
		}
	}
}

// loggedFinding is the finding in the log's last entry.
func (p *place) loggedFinding(t *testing.T, l *ledger.Ledger) *writv1.LedgerFinding {
	t.Helper()
	entries := p.wholeLog(t)
	for _, e := range entries[:len(entries)-1] {
		if text := string(e.GetHead()); !strings.HasPrefix(text, l.Origin()+"\n") || e.GetTimeUnixNs() == 0 {
			t.Errorf("an entry is of %q", text)
		}
	}
	return entries[len(entries)-1].GetFinding()
}
