// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/internal/testenv"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const paid = `{"payee":"Stadtwerke","cents":4200,"iban":"DE02120300000000202051"}`

// clerk is an agent of the sealing page, with the vault to whose keys it seals.
type clerk struct {
	*office
	vault, kek, keys string
}

// newClerk is one who has a vault's directory, and neither vault nor agent.
func newClerk(dir string) *clerk {
	return &clerk{vault: filepath.Join(dir, "vault"), kek: "file:" + filepath.Join(dir, "kek.key"), keys: filepath.Join(dir, "originals.keys")}
}

// openSealing makes keys of acme, and runs an agent that seals to them.
func openSealing(t *testing.T) *clerk {
	t.Helper()
	c := newClerk(t.TempDir())
	made := standardOutput(t, "keys", "make", "--vault", c.vault, "--kek", c.kek, "--tenant", "acme", "--from", yesterday(), "--days", "3")
	if err := os.WriteFile(c.keys, []byte(made), 0o600); err != nil {
		t.Fatal(err)
	}
	c.seat(t)
	return c
}

// seat runs the agent.
func (c *clerk) seat(t *testing.T) {
	t.Helper()
	c.office = openPage(t, "sealing.md", "spiffe://example.org/planner", "ledger: {origin: example.org/agent/desk}\noriginals_keys_file: "+c.keys+"\n")
}

func yesterday() string { return string(originals.DayOf(time.Now()).Add(-1)) }

// spoken runs a command, and returns what it prints.
func spoken(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, said bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&said)
	err = root.ExecuteContext(t.Context())
	return out.String(), said.String(), err
}

// quoted splits a command line at spaces, but for those within quotes.
func quoted(line string) []string {
	found := regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`).FindAllString(line, -1)
	for i, word := range found {
		if len(word) > 1 && (word[0] == '\'' || word[0] == '"') {
			found[i] = word[1 : len(word)-1]
		}
	}
	return found
}

// byChance is what is another each time.
var byChance = regexp.MustCompile(`[0-9a-f]{32,}|20\d\d-\d\d-\d\d|under \d+ signed|0 to \d+|size \d+|record \d+ of`)

// sealingPage plays the commands of the page against an agent and a vault.
type sealingPage struct {
	*clerk
	dir string
	// id and salt stand for those that the page shows.
	id, salt string
}

// args are the arguments of a command line of the page, as they are here.
func (p *sealingPage) args(line string) []string {
	args := quoted(line)[1:]
	for i, word := range args {
		switch word {
		case "/var/lib/writ/ledger":
			args[i] = filepath.Join(p.office.dir, "data", "ledger")
		case "bundle":
			args[i] = filepath.Join(p.office.dir, "bundle")
		case "vault", "vault/ledger":
			args[i] = filepath.Join(p.dir, word)
		case "4c1f8a6b0c1d2e3f405152637485960f":
			args[i] = p.id
		case "5d0f8c3b9a7e6f1d2c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978879605":
			args[i] = p.salt
		case "2026-11-28":
			args[i] = string(originals.DayOf(time.Now()).Add(1))
		}
	}
	if args[0] == "keys" || args[1] == "open" {
		args = append(args, "--vault", p.vault)
	}
	if args[0] == "keys" || slices.Contains(args, "--vault") {
		args = append(args, "--kek", p.kek)
	}
	return args
}

// play runs one command, and holds what it prints against the page.
func (p *sealingPage) play(t *testing.T, line, want string) {
	t.Helper()
	line, into, _ := strings.Cut(line, " > ")
	if p.office == nil && strings.HasPrefix(line, "writ records") {
		p.seat(t)
		p.id = p.pay(paid).GetDecisionId()
	}
	got, _, err := spoken(t, p.args(line)...)
	if err != nil && !errors.Is(err, errNothingReplayed) {
		t.Fatalf("%s: %v", line, err)
	}
	if _, after, ok := strings.Cut(got, "; salt "); ok {
		p.salt = strings.TrimSpace(after)
	}
	switch {
	case into != "":
		if err := os.WriteFile(filepath.Join(p.dir, into), []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	case want == "" && got == "" && !strings.HasSuffix(line, "sweep"):
		t.Errorf("%s prints nothing", line)
	case want != "" && byChance.ReplaceAllString(got, "_") != byChance.ReplaceAllString(want, "_"):
		t.Errorf("%s prints\n%s\nthe page says\n%s", line, got, want)
	}
}

func TestTheCommandsOfTheSealingPageDoWhatItShows(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/sealing.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &sealingPage{dir: dir, clerk: newClerk(dir)}
	played := 0
	for _, block := range strings.Split(string(page), "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, part := range strings.Split(block, "$ ")[1:] {
			line, want, _ := strings.Cut(part, "\n")
			if strings.HasPrefix(line, "writ ") {
				p.play(t, line, want)
				played++
			}
		}
	}
	if played < 12 {
		t.Errorf("%d commands were played", played)
	}
}

func TestWhatIsSealedIsOpenedInAnotherBundlesReplayToo(t *testing.T) {
	t.Parallel()
	c := openSealing(t)
	c.pay(paid)
	c.pay(strings.Replace(paid, "DE02", "FR02", 1))
	records, next := filepath.Join(c.dir, "data", "ledger"), filepath.Join(t.TempDir(), "next")
	if err := os.CopyFS(next, os.DirFS(filepath.Join(c.dir, "bundle"))); err != nil {
		t.Fatal(err)
	}
	change := func(file, from, to string) {
		t.Helper()
		path := filepath.Join(next, filepath.FromSlash(file))
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte(from)) {
			t.Fatalf("%s: %v", file, err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte(from), []byte(to)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replayed := func(bundle string) (replayReport, error) {
		t.Helper()
		return replayOf(t, "--ledger", records, "--bundle", bundle, "--vault", c.vault, "--kek", c.kek)
	}
	if report, err := replayed(filepath.Join(c.dir, "bundle")); err != nil || report.Recomputed != 2 {
		t.Errorf("under its own: %+v, %v", report, err)
	}
	change("grants/all.yaml", `"DE"`, `"FR"`)
	if report, err := replayed(next); !errors.Is(err, errNo) || report.Changed != 2 {
		t.Errorf("under a bundle that asks for another country: %+v, %v", report, err)
	}
	// A schema that has no place for the value leaves it closed.
	change("protos/payouts.proto", "string iban", "string account")
	change("grants/all.yaml", "args.iban", "args.account")
	if report, err := replayed(next); !errors.Is(err, errNothingReplayed) || report.NotReplayable["closed: iban"] != 2 {
		t.Errorf("under a schema without the field: %+v, %v", report, err)
	}
}

func TestOpeningSaysWhyThereIsNothingToOpen(t *testing.T) {
	t.Parallel()
	c := openSealing(t)
	records, id := filepath.Join(c.dir, "data", "ledger"), c.pay(paid).GetDecisionId()
	open := func(id, vault, kek string) (string, string, error) {
		return spoken(t, "records", "open", "--ledger", records, id, "--vault", vault, "--kek", kek, "-o", "json")
	}
	out, _, err := open(id, c.vault, c.kek)
	var values []openedValue
	if err != nil || json.Unmarshal([]byte(out), &values) != nil || len(values) != 1 || values[0].Path != "arguments.iban" || values[0].Value != `"DE02120300000000202051"` {
		t.Fatalf("%s, %v", out, err)
	}
	prove := func(path, value, salt string) error {
		_, _, err := spoken(t, "records", "prove", "--ledger", records, id, "--path", path, "--value", value, "--salt", salt)
		return err
	}
	v := values[0]
	for name, c := range map[string]struct {
		path, value, salt string
		want              error
	}{
		"the value":     {v.Path, v.Value, v.Salt, nil},
		"another value": {v.Path, `"DE03"`, v.Salt, errNo},
		"another path":  {"arguments.card", v.Value, v.Salt, errNo},
		"another salt":  {v.Path, v.Value, strings.Repeat("00", 32), errNo},
	} {
		if err := prove(c.path, c.value, c.salt); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("proof with %s: %v, want %v", name, err, c.want)
		}
	}
	none := c.pay(`{"payee":"x","cents":1}`).GetDecisionId()
	if _, said, err := open(none, c.vault, c.kek); !errors.Is(err, errNo) || !strings.Contains(said, "no originals are sealed") {
		t.Errorf("nothing is sealed: %s, %v", said, err)
	}
	if _, said, err := open(strings.Repeat("0", 32), c.vault, c.kek); !errors.Is(err, errNo) || !strings.Contains(said, "nothing is recorded") {
		t.Errorf("no such decision: %s, %v", said, err)
	}
	other := t.TempDir()
	kek := "file:" + filepath.Join(other, "kek")
	standardOutput(t, "keys", "make", "--vault", other, "--kek", kek, "--tenant", "acme", "--days", "1")
	if _, said, err := open(id, other, kek); !errors.Is(err, errNo) || !strings.Contains(said, "not held here") {
		t.Errorf("another vault: %s, %v", said, err)
	}
	if _, _, err := open(id, c.vault, kek); err == nil || !strings.Contains(err.Error(), "another key encryption key") {
		t.Errorf("another key encryption key: %v", err)
	}
	standardOutput(t, "keys", "shred", "--vault", c.vault, "--tenant", "acme", "--before", string(originals.DayOf(time.Now()).Add(1)))
	if _, said, err := open(id, c.vault, c.kek); !errors.Is(err, errNo) || !strings.Contains(said, "was shredded") {
		t.Errorf("after the shredding: %s, %v", said, err)
	}
}

func TestSweepShredsWhatIsOlderThanItsTenantsWindow(t *testing.T) {
	t.Parallel()
	c := newClerk(t.TempDir())
	today := originals.DayOf(time.Now())
	do := func(args ...string) (string, string) {
		t.Helper()
		out, said, err := spoken(t, append([]string{"keys", "--vault", c.vault, "--kek", c.kek}, args...)...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out, said
	}
	for _, tenant := range []string{"acme", "held", "kept", "lifted", ""} {
		do("make", "--tenant", tenant, "--from", string(today.Add(-5)), "--days", "7")
	}
	// All its keys are older.
	do("make", "--tenant", "old", "--from", string(today.Add(-9)), "--days", "2")
	for _, tenant := range []string{"acme", "held", "lifted", "old", ""} {
		do("retain", "--tenant", tenant, "--days", "2")
	}
	do("hold", "--tenant", "held")
	do("retain", "--tenant", "lifted", "--for-ever")
	// Midnight may pass between two commands.
	before := string(today.Add(-2))
	want := fmt.Sprintf("shredded  the keys of \"\" before %[1]s: 3\nshredded  the keys of \"acme\" before %[1]s: 3\nshredded  the keys of \"old\" before %[2]s: 2\n", before, today.Add(-7))
	out, said := do("sweep")
	if today != originals.DayOf(time.Now()) {
		return // another day has begun
	}
	if out != want || !strings.Contains(said, `the tenant "held" is under a legal hold`) {
		t.Errorf("the sweep says\n%s%s\nwant\n%s", out, said, want)
	}
	if out, _ := do("sweep"); out != "" {
		t.Errorf("a second sweep says %s", out)
	}
	var list []keysOf
	out, _ = do("list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 6 {
		t.Fatalf("%s, %v", out, err)
	}
	left := make(map[string]int)
	for _, of := range list {
		left[of.Tenant] = of.Keys
	}
	if diff := cmp.Diff(map[string]int{"": 4, "acme": 4, "held": 7, "kept": 7, "lifted": 7, "old": 0}, left); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestAnAgentTakesNewKeysAndKeepsThoseItHasWhereTheFileIsNotRight(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "originals.keys")
	s := &sealing{path: path, sealer: originals.NewSealer([32]byte{})}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.read(); err == nil {
		t.Error("a file that is not there is read")
	}
	public, _, err := originals.Generate()
	if err != nil {
		t.Fatal(err)
	}
	key := originals.PublicKey{Tenant: "acme", Day: "2026-11-27", Bytes: public}
	write(key.String() + "\n")
	if changed, err := s.read(); !changed || err != nil || s.days("2026-11-27") != 1 || s.days("2026-11-28") != 0 {
		t.Errorf("changed %t, %v", changed, err)
	}
	if changed, err := s.read(); changed || err != nil {
		t.Errorf("the same again: changed %t, %v", changed, err)
	}
	write("nonsense\n")
	if _, err := s.read(); err == nil || s.sealer.Keys().Len() != 1 {
		t.Errorf("nonsense: %v", err)
	}
	write("")
	if changed, err := s.read(); !changed || err != nil || s.sealer.Keys().Len() != 0 || s.days("2026-11-27") != 0 {
		t.Errorf("no keys: changed %t, %v", changed, err)
	}
}

func TestAnAgentWithoutKeysTellsOfToolsThatAskForThem(t *testing.T) {
	t.Parallel()
	o := openPage(t, "sealing.md", "spiffe://example.org/planner", "")
	if verdict := o.pay(paid).GetDecision().GetVerdict(); verdict != writv1.Verdict_VERDICT_ALLOW {
		t.Errorf("the call is answered with %v", verdict)
	}
	if !strings.Contains(o.log(), "originals_keys_file: they are not") {
		t.Errorf("the log does not tell:\n%s", o.log())
	}
}

func TestOriginalsAreOpenedWithKeysUnderKMSUntilTheyAreShredded(t *testing.T) {
	service := testenv.StartKMS(t)
	arn := service.MakeKey(t, "alias/writ-originals")
	c := newClerk(t.TempDir())
	c.kek = "aws-kms:alias/writ-originals"
	made := standardOutput(t, "keys", "make", "--vault", c.vault, "--kek", c.kek, "--tenant", "acme", "--from", yesterday(), "--days", "3")
	if err := os.WriteFile(c.keys, []byte(made), 0o600); err != nil {
		t.Fatal(err)
	}
	c.seat(t)
	records, id := filepath.Join(c.dir, "data", "ledger"), c.pay(paid).GetDecisionId()
	for _, kek := range []string{c.kek, "aws-kms:" + arn} {
		if out := standardOutput(t, "records", "open", "--ledger", records, id, "--vault", c.vault, "--kek", kek); !strings.Contains(out, "DE02120300000000202051") {
			t.Errorf("with %s: %s", kek, out)
		}
	}
	if report, err := replayOf(t, "--ledger", records, "--bundle", filepath.Join(c.dir, "bundle"), "--vault", c.vault, "--kek", c.kek); err != nil || report.Recomputed != 1 {
		t.Errorf("replay: %+v, %v", report, err)
	}
	if _, _, err := spoken(t, "records", "open", "--ledger", records, id, "--vault", c.vault, "--kek", "aws-kms:alias/nothing"); err == nil || !strings.Contains(err.Error(), "alias/nothing") {
		t.Errorf("with a key that is not there: %v", err)
	}
	standardOutput(t, "keys", "shred", "--vault", c.vault, "--tenant", "acme", "--before", string(originals.DayOf(time.Now()).Add(1)))
	if _, said, err := spoken(t, "records", "open", "--ledger", records, id, "--vault", c.vault, "--kek", c.kek); !errors.Is(err, errNo) || !strings.Contains(said, "was shredded") {
		t.Errorf("after the shredding: %s, %v", said, err)
	}
}

func TestTheResultIsOpenedBesideTheArguments(t *testing.T) {
	t.Parallel()
	c, dir := newClerk(t.TempDir()), filepath.Join(t.TempDir(), "ledger")
	made := standardOutput(t, "keys", "make", "--vault", c.vault, "--kek", c.kek, "--tenant", "acme", "--from", "2026-11-27", "--days", "2")
	keys, err := originals.ParseKeys([]byte(made))
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := ledger.Open(ledger.Options{Dir: dir, Origin: "example.org/agent/desk"})
	if err != nil {
		t.Fatal(err)
	}
	sealer := originals.NewSealer(ledger.LogID(l.Origin()))
	sealer.Use(keys)
	id, at := bytes.Repeat([]byte{7}, 16), time.Date(2026, 11, 27, 23, 59, 59, 0, time.UTC)
	write := func(kind writv1.RecordKind, body proto.Message, path, value string, at time.Time) {
		t.Helper()
		sealed, values, err := sealer.Seal("acme", id, at, []ledger.Sensitive{{Path: path, Value: []byte(value)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), ledger.Entry{Kind: kind, Tenant: "acme", DecisionID: id, Body: body, Sensitive: values, Sealed: sealed}, writv1.Durability_DURABILITY_PROCESS); err != nil {
			t.Fatal(err)
		}
	}
	write(writv1.RecordKind_RECORD_KIND_DECISION, &writv1.DecisionRecord{}, "arguments.iban", `"DE02"`, at)
	write(writv1.RecordKind_RECORD_KIND_OUTCOME, &writv1.OutcomeRecord{}, "result.card", `"4111"`, at.Add(time.Second))
	if err := l.Close(nil); err != nil {
		t.Fatal(err)
	}
	open := func() ([]openedValue, string, error) {
		t.Helper()
		out, said, err := spoken(t, "records", "open", "--ledger", dir, strings.Repeat("07", 16), "--vault", c.vault, "--kek", c.kek, "-o", "json")
		var values []openedValue
		if err := json.Unmarshal([]byte(out), &values); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return values, said, err
	}
	values, _, err := open()
	if err != nil || len(values) != 2 || values[0].Path != "arguments.iban" || values[1].Path != "result.card" || values[1].Index != 1 {
		t.Fatalf("%+v, %v", values, err)
	}
	if _, said, err := spoken(t, "records", "prove", "--ledger", dir, strings.Repeat("07", 16), "--path", "result.card", "--value", values[1].Value, "--salt", values[1].Salt); err != nil {
		t.Errorf("%s: %v", said, err)
	}
	// The outcome is of the next day: it outlives the decision's originals.
	standardOutput(t, "keys", "shred", "--vault", c.vault, "--tenant", "acme", "--before", "2026-11-28")
	values, said, err := open()
	if !errors.Is(err, errNo) || len(values) != 1 || values[0].Path != "result.card" || !strings.Contains(said, "record 0: the key that the originals are sealed to was shredded") {
		t.Errorf("%+v, %s, %v", values, said, err)
	}
}
