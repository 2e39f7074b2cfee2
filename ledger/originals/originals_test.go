// SPDX-License-Identifier: Apache-2.0

package originals_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const secret = `"DE02120300000000202051"`

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// holder holds private keys in memory.
type holder map[[32]byte]originals.Private

// Private returns a key, or says that it is not there.
func (h holder) Private(_ context.Context, id [32]byte) (originals.Private, error) {
	private, ok := h[id]
	if !ok {
		return originals.Private{}, originals.ErrNoKey
	}
	return private, nil
}

// add makes the key of a tenant and day, and returns its line.
func (h holder) add(t testing.TB, tenant string, day originals.Day) string {
	t.Helper()
	bytes, private, err := originals.Generate()
	if err != nil {
		t.Fatal(err)
	}
	public := originals.PublicKey{Tenant: tenant, Day: day, Bytes: bytes}
	h[public.ID()] = originals.Private{Tenant: tenant, Day: day, Key: private}
	return public.String() + "\n"
}

func parsed(t testing.TB, lines ...string) *originals.Keys {
	t.Helper()
	keys, err := originals.ParseKeys([]byte(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// book is a ledger with a sealer.
type book struct {
	t      testing.TB
	ledger *ledger.Ledger
	sealer *originals.Sealer
}

func openBook(t testing.TB, origin string) *book {
	t.Helper()
	l, _, err := ledger.Open(ledger.Options{Dir: filepath.Join(t.TempDir(), "ledger"), Origin: origin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(nil) })
	return &book{t: t, ledger: l, sealer: originals.NewSealer(ledger.LogID(l.Origin()))}
}

// record seals values, and returns the record as the ledger has it.
func (b *book) record(decision byte, tenant string, at time.Time, values ...ledger.Sensitive) *writv1.Record {
	b.t.Helper()
	id := bytes.Repeat([]byte{decision}, 16)
	sealed, values, err := b.sealer.Seal(tenant, id, at, values)
	if err != nil {
		b.t.Fatal(err)
	}
	position, err := b.ledger.Append(b.t.Context(), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_DECISION, Tenant: tenant, DecisionID: id, Body: &writv1.DecisionRecord{}, Sensitive: values, Sealed: sealed,
	}, writv1.Durability_DURABILITY_PROCESS)
	if err != nil {
		b.t.Fatal(err)
	}
	reader, err := b.ledger.Reader(position.Index)
	if err != nil {
		b.t.Fatal(err)
	}
	bundle, err := reader.Next(b.t.Context(), 1, 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	record, err := ledger.CheckRecord(bundle.Records[0], ledger.LogID(b.ledger.Origin()), position.Index)
	if err != nil {
		b.t.Fatal(err)
	}
	return record
}

func iban() ledger.Sensitive { return ledger.Sensitive{Path: "arguments.iban", Value: []byte(secret)} }

func TestWhoHasTheKeyOfTheDayOpensAndProvesEachValue(t *testing.T) {
	t.Parallel()
	h, b := holder{}, openBook(t, "example.org/agent/a")
	b.sealer.Use(parsed(t, h.add(t, "acme", "2026-11-27"), h.add(t, "", "2026-11-27")))
	for _, tenant := range []string{"acme", ""} {
		record := b.record(1, tenant, noon, ledger.Sensitive{Path: "arguments.pins[0]", Value: []byte("4711")}, iban())
		if text, err := proto.Marshal(record); err != nil || bytes.Contains(text, []byte("DE0212")) {
			t.Fatalf("the record tells what is sealed: %v", err)
		}
		values, err := originals.NewOpener(h).Open(t.Context(), record)
		if err != nil || len(values) != 2 || string(values[0].JSON) != secret || string(values[1].JSON) != "4711" {
			t.Fatalf("tenant %q: %v, %v", tenant, values, err)
		}
		for i, v := range values {
			if err := ledger.VerifyDisclosure(record, v.Path, v.JSON, v.Salt); err != nil {
				t.Errorf("%s: %v", v.Path, err)
			}
			if err := ledger.VerifyDisclosure(record, v.Path, v.JSON, values[1-i].Salt); err == nil {
				t.Errorf("%s is proved with the salt of another", v.Path)
			}
		}
		// The ledger's own key proves nothing of it: what is shredded cannot be guessed.
		salt, err := b.ledger.Disclose(record.GetIndex(), "arguments.iban")
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyDisclosure(record, "arguments.iban", []byte(secret), salt); !errors.Is(err, ledger.ErrDisclosure) {
			t.Errorf("the ledger's commit key confirms the value: %v", err)
		}
	}
}

func TestWhatIsSealedOpensInItsOwnRecordAlone(t *testing.T) {
	t.Parallel()
	h, b := holder{}, openBook(t, "example.org/agent/a")
	acme := h.add(t, "acme", "2026-11-27")
	b.sealer.Use(parsed(t, acme, h.add(t, "other", "2026-11-27"), h.add(t, "acme", "2026-11-28")))
	first, second := b.record(1, "acme", noon, iban()), b.record(2, "acme", noon, iban())
	other := b.record(3, "other", noon, iban())
	later := b.record(4, "acme", noon.AddDate(0, 0, 1), iban())
	elsewhere := openBook(t, "example.org/agent/b")
	elsewhere.sealer.Use(parsed(t, acme))
	foreign := elsewhere.record(1, "acme", noon, iban())
	change := func(r *writv1.Record, f func(*writv1.Record)) *writv1.Record {
		r = proto.CloneOf(r)
		f(r)
		return r
	}
	for name, record := range map[string]*writv1.Record{
		"of another decision":       change(first, func(r *writv1.Record) { r.Sealed = second.GetSealed() }),
		"of another tenant":         change(first, func(r *writv1.Record) { r.Sealed = other.GetSealed() }),
		"of another day":            change(first, func(r *writv1.Record) { r.Sealed = later.GetSealed() }),
		"of another ledger":         change(first, func(r *writv1.Record) { r.Sealed = foreign.GetSealed() }),
		"with its day changed":      change(first, func(r *writv1.Record) { r.Sealed.Day = "2026-11-28" }),
		"with its decision changed": change(first, func(r *writv1.Record) { r.DecisionId = second.GetDecisionId() }),
		"with its tenant changed":   change(first, func(r *writv1.Record) { r.Tenant = "other" }),
		"with a commitment more": change(first, func(r *writv1.Record) {
			r.Commitments = append(r.Commitments, &writv1.Commitment{Path: "arguments.x", Digest: make([]byte, 32)})
		}),
		"with another commitment": change(first, func(r *writv1.Record) { r.Commitments[0].Digest[0] ^= 1 }),
		"with another path":       change(first, func(r *writv1.Record) { r.Commitments[0].Path = "arguments.card" }),
		"with a bit flipped":      change(first, func(r *writv1.Record) { r.Sealed.Ciphertext[20] ^= 1 }),
		"with its key flipped":    change(first, func(r *writv1.Record) { r.Sealed.WrappedKey[40] ^= 1 }),
		"cut short":               change(first, func(r *writv1.Record) { r.Sealed.Ciphertext = r.Sealed.Ciphertext[:5] }),
		"without a log id":        change(first, func(r *writv1.Record) { r.LogId = nil }),
		"with a key id too short": change(first, func(r *writv1.Record) { r.Sealed.KeyId = r.Sealed.KeyId[:31] }),
	} {
		if values, err := originals.NewOpener(h).Open(t.Context(), record); !errors.Is(err, originals.ErrBroken) {
			t.Errorf("%s: %v, %v", name, values, err)
		}
	}
	// The opener remembers data keys: one that is warm refuses the same.
	warm := originals.NewOpener(h)
	for range 2 {
		if _, err := warm.Open(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if _, err := warm.Open(t.Context(), change(first, func(r *writv1.Record) { r.Tenant = "other" })); !errors.Is(err, originals.ErrBroken) {
			t.Errorf("a warm opener opens for another tenant: %v", err)
		}
	}
	if _, err := originals.NewOpener(holder{}).Open(t.Context(), first); !errors.Is(err, originals.ErrNoKey) {
		t.Errorf("without the key: %v", err)
	}
	if _, err := warm.Open(t.Context(), &writv1.Record{}); !errors.Is(err, originals.ErrNone) {
		t.Errorf("where nothing is sealed: %v", err)
	}
}

// Whoever reads records with other tools opens them as originals.proto says.
func TestWhatIsSealedOpensByTheTextOfTheFormat(t *testing.T) {
	t.Parallel()
	h, b := holder{}, openBook(t, "example.org/agent/a")
	b.sealer.Use(parsed(t, h.add(t, "acme", "2026-11-27")))
	record := b.record(7, "acme", noon, iban())
	sealed := record.GetSealed()
	private := h[[32]byte(sealed.GetKeyId())].Key
	raw, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("writ/originals-key/v1\n2026-11-27\nacme"), sealed.GetWrappedKey())
	if err != nil {
		t.Fatal(err)
	}
	aead := gcm(t, raw)
	plain, err := aead.Open(nil, sealed.GetCiphertext()[:12], sealed.GetCiphertext()[12:], additional(record))
	if err != nil {
		t.Fatal(err)
	}
	text := &writv1.OriginalsText{}
	if err := proto.Unmarshal(plain, text); err != nil || string(text.GetValues()[0].GetValue()) != secret {
		t.Errorf("%v, %v", text, err)
	}
}

// An agent that was taken over can seal what it likes, and has committed to the values that
// it decided on.
func TestOtherValuesThanWereCommittedToAreNotShown(t *testing.T) {
	t.Parallel()
	h, b := holder{}, openBook(t, "example.org/agent/a")
	b.sealer.Use(parsed(t, h.add(t, "acme", "2026-11-27")))
	honest := b.record(7, "acme", noon, iban())
	private := h[[32]byte(honest.GetSealed().GetKeyId())].Key
	info, key := []byte("writ/originals-key/v1\n2026-11-27\nacme"), make([]byte, 32)
	wrapped, err := hpke.Seal(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), info, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range map[string][]*writv1.OriginalValue{
		"another value": {{Path: "arguments.iban", Value: []byte(`"DE03"`)}},
		"another path":  {{Path: "arguments.card", Value: []byte(secret)}},
		"no value":      nil,
		"one more":      {{Path: "arguments.iban", Value: []byte(secret)}, {Path: "arguments.x", Value: []byte("1")}},
	} {
		plain, err := canonical.Marshal(&writv1.OriginalsText{Salt: make([]byte, 32), Values: values})
		if err != nil {
			t.Fatal(err)
		}
		forged := proto.CloneOf(honest)
		forged.Sealed.WrappedKey = wrapped
		nonce := make([]byte, 12)
		forged.Sealed.Ciphertext = gcm(t, key).Seal(nonce, nonce, plain, additional(forged))
		if values, err := originals.NewOpener(h).Open(t.Context(), forged); !errors.Is(err, originals.ErrBroken) {
			t.Errorf("%s is shown: %v, %v", name, values, err)
		}
	}
}

func gcm(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// additional are the additional data of what is sealed in a record, as originals.proto has them.
func additional(record *writv1.Record) []byte {
	length := func(n int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // small
	var commitments []byte
	for _, c := range record.GetCommitments() {
		commitments = slices.Concat(commitments, length(len(c.GetPath())), []byte(c.GetPath()), c.GetDigest())
	}
	sum := sha256.Sum256(commitments)
	return slices.Concat([]byte("writ/originals/v1\n"), record.GetLogId(), length(len(record.GetDecisionId())), record.GetDecisionId(), sum[:])
}

func TestWhatCannotBeSealedIsKeptOutAllTheSameAndSaidSo(t *testing.T) {
	t.Parallel()
	h, b := holder{}, openBook(t, "example.org/agent/a")
	key := h.add(t, "acme", "2026-11-27")
	large := ledger.Sensitive{Path: "arguments.text", Value: bytes.Repeat([]byte("1"), originals.MostSealedBytes)}
	for _, test := range []struct {
		name   string
		keys   []string
		tenant string
		at     time.Time
		value  ledger.Sensitive
		want   writv1.OriginalsGap
	}{
		{"no keys at all", nil, "acme", noon, iban(), writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY},
		{"no key of the tenant", []string{key}, "other", noon, iban(), writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY},
		{"no key of the day", []string{key}, "acme", noon.AddDate(0, 0, 1), iban(), writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY},
		{"too large", []string{key}, "acme", noon, large, writv1.OriginalsGap_ORIGINALS_GAP_TOO_LARGE},
	} {
		if test.keys != nil {
			b.sealer.Use(parsed(t, test.keys...))
		}
		record := b.record(1, test.tenant, test.at, test.value)
		if sealed := record.GetSealed(); sealed.GetGap() != test.want || len(sealed.GetCiphertext()) != 0 {
			t.Errorf("%s: %v", test.name, record.GetSealed())
		}
		salt, err := b.ledger.Disclose(record.GetIndex(), test.value.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyDisclosure(record, test.value.Path, test.value.Value, salt); err != nil {
			t.Errorf("%s: the ledger's own commitment: %v", test.name, err)
		}
	}
}

func TestTheDataKeyIsAnotherAfterAnHourAndOnAnotherDay(t *testing.T) {
	t.Parallel()
	h, b := holder{}, openBook(t, "example.org/agent/a")
	b.sealer.Use(parsed(t, h.add(t, "acme", "2026-11-27"), h.add(t, "acme", "2026-11-28")))
	wrapped := func(at time.Time) string { return string(b.record(1, "acme", at, iban()).GetSealed().GetWrappedKey()) }
	first := wrapped(noon)
	if wrapped(noon.Add(time.Hour)) != first {
		t.Error("within the hour it is another")
	}
	second := wrapped(noon.Add(time.Hour + time.Second))
	if second == first {
		t.Error("after the hour it is the same")
	}
	if wrapped(noon.Add(12*time.Hour)) == second {
		t.Error("on the next day it is the same")
	}
	b.sealer.Forget(noon.Add(13 * time.Hour))
	if b.sealer.Held() != 1 {
		t.Error("within the hour it is forgotten")
	}
	b.sealer.Forget(noon.Add(13*time.Hour + time.Second))
	if b.sealer.Held() != 0 {
		t.Error("after the hour it is not forgotten")
	}
}

func TestAnyValuesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	h := holder{}
	keys := parsed(t, h.add(t, "acme", "2026-11-27"))
	logID := ledger.LogID("example.org/agent/any")
	sealer, opener := originals.NewSealer(logID), originals.NewOpener(h)
	sealer.Use(keys)
	rapid.Check(t, func(t *rapid.T) {
		drawn := rapid.MapOfN(rapid.StringN(1, 40, 100), rapid.SliceOfN(rapid.Byte(), 0, 100), 1, 20).Draw(t, "values")
		var values []ledger.Sensitive
		for path, value := range drawn {
			values = append(values, ledger.Sensitive{Path: "arguments." + path, Value: value})
		}
		id := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")
		sealed, committed, err := sealer.Seal("acme", id, noon, values)
		if err != nil {
			t.Skip(err) // a path that is no UTF-8, which a record does not hold either
		}
		record := &writv1.Record{LogId: logID[:], Tenant: "acme", DecisionId: id, Sealed: sealed}
		for _, v := range committed {
			record.Commitments = append(record.Commitments, &writv1.Commitment{Path: v.Path, Digest: v.Digest})
		}
		if _, err := canonical.Marshal(record); err != nil {
			t.Fatal(err)
		}
		opened, err := opener.Open(context.Background(), record)
		if err != nil || len(opened) != len(drawn) {
			t.Fatalf("%d of %d values, %v", len(opened), len(drawn), err)
		}
		for _, v := range opened {
			if !bytes.Equal(v.JSON, drawn[strings.TrimPrefix(v.Path, "arguments.")]) {
				t.Fatalf("%s is another", v.Path)
			}
		}
	})
}

func TestKeysAreReadAsTheyAreWrittenAndNothingElse(t *testing.T) {
	t.Parallel()
	h := holder{}
	odd := "a b\n\"ü"
	keys := parsed(t, "# ours\n\n", h.add(t, odd, "2026-11-27"), h.add(t, odd, "2026-11-28"), h.add(t, odd, "2026-11-30"), h.add(t, "", "2026-11-27"))
	if keys.Len() != 4 || keys.Days(odd, "2026-11-27") != 2 || keys.Days(odd, "2026-11-29") != 0 || len(keys.Tenants()) != 2 {
		t.Errorf("%d keys, %d days", keys.Len(), keys.Days(odd, "2026-11-27"))
	}
	line := h.add(t, "acme", "2026-11-27")
	same, err := originals.ParseKeys([]byte(line + line))
	if err != nil || same.Len() != 1 {
		t.Errorf("a line twice: %v", err)
	}
	fields := strings.Fields(line)
	for name, text := range map[string]string{
		"another key of the day":  line + h.add(t, "acme", "2026-11-27"),
		"no such day":             "2026-02-30 " + fields[1] + ` "acme"`,
		"a day of another form":   "27.11.2026 " + fields[1] + ` "acme"`,
		"no tenant":               fields[0] + " " + fields[1],
		"a tenant without quotes": fields[0] + " " + fields[1] + " acme",
		"no UTF-8":                fields[0] + " " + fields[1] + ` "\xff"`,
		"a long tenant":           fields[0] + " " + fields[1] + ` "` + strings.Repeat("a", 129) + `"`,
		"a key that is short":     fields[0] + ` AAAA "acme"`,
		"a key that is no base64": fields[0] + ` !!! "acme"`,
		"too much":                strings.Repeat("#", originals.MostKeyBytes+1),
	} {
		if keys, err := originals.ParseKeys([]byte(text)); !errors.Is(err, originals.ErrKeys) {
			t.Errorf("%s: %v, %v", name, keys, err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	h := holder{}
	f.Add([]byte("# a\n" + h.add(f, "acme", "2026-11-27") + h.add(f, "a \"b", "2026-11-28")))
	f.Add([]byte("2026-11-27 AAAA \"\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := originals.ParseKeys(text)
		if err != nil {
			return
		}
		for _, tenant := range keys.Tenants() {
			_ = keys.Days(tenant, "2026-11-27")
		}
	})
}

// BenchmarkSeal seals one value of 24 bytes.
func BenchmarkSeal(b *testing.B) {
	h := holder{}
	sealer := originals.NewSealer(ledger.LogID("example.org/agent/bench"))
	sealer.Use(parsed(b, h.add(b, "acme", "2026-11-27")))
	id, values := make([]byte, 16), []ledger.Sensitive{iban()}
	for b.Loop() {
		if _, _, err := sealer.Seal("acme", id, noon, values); err != nil {
			b.Fatal(err)
		}
	}
}
