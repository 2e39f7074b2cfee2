// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/ledger/vault"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// newKek makes a key encryption key in a file.
func newKek(t *testing.T) *vault.FileKek {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek.key")
	if err := vault.MakeFileKek(path); err != nil {
		t.Fatal(err)
	}
	kek, err := vault.ReadFileKek(path)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func open(t *testing.T, dir string, kek vault.Wrapper) *vault.Vault {
	t.Helper()
	v, err := vault.Open(dir, kek)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func view(t *testing.T, dir string, kek vault.Wrapper) *vault.Vault {
	t.Helper()
	v, err := vault.View(dir, kek)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func closed(t *testing.T, v *vault.Vault) {
	t.Helper()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func three(tenant string) vault.Request {
	return vault.Request{Tenant: tenant, First: "2026-11-27", Days: 3, By: "ann"}
}

// files counts the files of keys.
func files(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", entry.Name(), info.Mode(), err)
		}
	}
	return len(entries)
}

func TestAKeyIsThereUntilItIsShredded(t *testing.T) {
	t.Parallel()
	dir, kek := filepath.Join(t.TempDir(), "vault"), newKek(t)
	v := open(t, dir, kek)
	made, err := v.Make(t.Context(), three("acme"))
	if err != nil || len(made) != 3 || files(t, dir) != 3 {
		t.Fatalf("%d keys, %v", len(made), err)
	}
	if again, err := v.Make(t.Context(), three("acme")); err != nil || len(again) != 0 {
		t.Errorf("keys that are there are made again: %v, %v", again, err)
	}
	if _, err := v.Make(t.Context(), three("other")); err != nil {
		t.Fatal(err)
	}
	private, err := v.Private(t.Context(), made[0].ID())
	if err != nil || private.Tenant != "acme" || private.Day != "2026-11-27" {
		t.Errorf("%+v, %v", private, err)
	}
	if n, err := v.Shred(t.Context(), "acme", "2026-11-29", "ann", "retention"); err != nil || n != 2 {
		t.Errorf("shredded %d: %v", n, err)
	}
	if files(t, dir) != 4 {
		t.Errorf("%d files are left of six", files(t, dir))
	}
	closed(t, v)
	for name, v := range map[string]*vault.Vault{"view": view(t, dir, kek), "open": open(t, dir, kek)} {
		for i, want := range []error{originals.ErrShredded, originals.ErrShredded, nil} {
			if _, err := v.Private(t.Context(), made[i].ID()); !errors.Is(err, want) {
				t.Errorf("%s: the key of %s: %v, want %v", name, made[i].Day, err, want)
			}
		}
		if _, err := v.Private(t.Context(), [32]byte{}); !errors.Is(err, originals.ErrNoKey) {
			t.Errorf("%s: a key that never was: %v", name, err)
		}
		want := vault.Tenant{Tenant: "acme", First: "2026-11-29", Last: "2026-11-29", Keys: 1, ShreddedBefore: "2026-11-29"}
		if got := v.Tenants(); len(got) != 2 || got[0] != want || got[1].Keys != 3 {
			t.Errorf("%s: %+v", name, got)
		}
		if public := v.Public(); len(public) != 4 || public[0] != made[2] || public[1].Tenant != "other" {
			t.Errorf("%s: %v", name, public)
		}
		closed(t, v)
	}
	v = open(t, dir, kek)
	defer closed(t, v)
	if _, err := v.Make(t.Context(), three("acme")); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("days that were shredded get keys: %v", err)
	}
	if n, err := v.Shred(t.Context(), "acme", "2026-11-28", "ann", ""); err != nil || n != 0 {
		t.Errorf("an earlier day shreds %d: %v", n, err)
	}
	if _, err := v.Private(t.Context(), made[1].ID()); !errors.Is(err, originals.ErrShredded) {
		t.Errorf("and takes back what was shredded: %v", err)
	}
}

func TestWhatWasBegunToShredIsFinishedAndWhatComesBackIsNotUsed(t *testing.T) {
	t.Parallel()
	dir, kek := filepath.Join(t.TempDir(), "vault"), newKek(t)
	v := open(t, dir, kek)
	made, err := v.Make(t.Context(), three("acme"))
	if err != nil {
		t.Fatal(err)
	}
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(dir, "keys"))); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Shred(t.Context(), "acme", "2026-11-30", "ann", ""); err != nil {
		t.Fatal(err)
	}
	closed(t, v)
	// As after a crash between the record and the deletion, or when a backup is put back.
	if err := os.RemoveAll(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "keys"), os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	if _, err := view(t, dir, kek).Private(t.Context(), made[0].ID()); !errors.Is(err, originals.ErrShredded) {
		t.Errorf("a key of a backup is used: %v", err)
	}
	closed(t, open(t, dir, nil))
	if n := files(t, dir); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

func TestATenantUnderALegalHoldIsNotShredded(t *testing.T) {
	t.Parallel()
	dir, kek := filepath.Join(t.TempDir(), "vault"), newKek(t)
	v := open(t, dir, kek)
	made, err := v.Make(t.Context(), three("acme"))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Release(t.Context(), "acme", "ann", ""); !errors.Is(err, vault.ErrNotHeld) {
		t.Errorf("a hold that is not there is released: %v", err)
	}
	if err := v.Hold(t.Context(), "acme", "ann", "Smith v. Acme"); err != nil {
		t.Fatal(err)
	}
	if err := v.Hold(t.Context(), "acme", "ann", ""); !errors.Is(err, vault.ErrHeld) {
		t.Errorf("held twice: %v", err)
	}
	closed(t, v)
	v = open(t, dir, kek)
	defer closed(t, v)
	if n, err := v.Shred(t.Context(), "acme", "2026-11-29", "ann", ""); !errors.Is(err, vault.ErrHeld) || n != 0 {
		t.Errorf("shredded %d: %v", n, err)
	}
	if _, err := v.Private(t.Context(), made[0].ID()); err != nil {
		t.Errorf("after that: %v", err)
	}
	if !v.Tenants()[0].Held {
		t.Error("the hold is not told of")
	}
	if err := v.Release(t.Context(), "acme", "ann", ""); err != nil {
		t.Fatal(err)
	}
	if n, err := v.Shred(t.Context(), "acme", "2026-11-29", "ann", ""); err != nil || n != 2 {
		t.Errorf("after the release %d are shredded: %v", n, err)
	}
}

func TestARetentionWindowIsKeptAndShredsNothingItself(t *testing.T) {
	t.Parallel()
	dir, days := filepath.Join(t.TempDir(), "vault"), uint32(1)
	v := open(t, dir, newKek(t))
	if _, err := v.Make(t.Context(), three("acme")); err != nil {
		t.Fatal(err)
	}
	if due, ok := v.Tenants()[0].Due("2026-11-29"); ok {
		t.Errorf("without a window %s is due", due)
	}
	if err := v.Retain(t.Context(), "acme", &days, "ann", "policy 7"); err != nil {
		t.Fatal(err)
	}
	days = vault.MostWindow + 1
	if err := v.Retain(t.Context(), "acme", &days, "ann", ""); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("a window that is too long: %v", err)
	}
	closed(t, v)
	v = open(t, dir, nil)
	defer closed(t, v)
	if due, ok := v.Tenants()[0].Due("2026-11-29"); !ok || due != "2026-11-28" || files(t, dir) != 3 {
		t.Errorf("due before %s, %t; %d keys", due, ok, files(t, dir))
	}
	if err := v.Retain(t.Context(), "acme", nil, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if due, ok := v.Tenants()[0].Due("2026-11-29"); ok {
		t.Errorf("after the window was lifted %s is due", due)
	}
}

func TestEverythingThatIsDoneIsRecordedAndVerifies(t *testing.T) {
	t.Parallel()
	dir, kek := filepath.Join(t.TempDir(), "vault"), newKek(t)
	v := open(t, dir, kek)
	if _, err := v.Make(t.Context(), three("acme")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Hold(t.Context(), "acme", "ann", "case"), v.Release(t.Context(), "acme", "bob", "closed")); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Shred(t.Context(), "acme", "2026-11-28", "ann", "request 4711"); err != nil {
		t.Fatal(err)
	}
	closed(t, v)
	text, err := os.ReadFile(filepath.Join(dir, "ledger", "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(string(text[:len(text)-1]))
	if err != nil {
		t.Fatal(err)
	}
	report, err := ledger.Verify(filepath.Join(dir, "ledger"), verifier)
	if err != nil || report.Fault != nil || !report.Ended {
		t.Errorf("%+v, %v", report, err)
	}
	var acts []writv1.KeyAct
	var last *writv1.KeyRecord
	err = ledger.NewDirReader(filepath.Join(dir, "ledger"), verifier).Read(func(_ uint64, raw []byte) error {
		record := &writv1.Record{}
		if err := canonical.Unmarshal(raw, record); err != nil || record.GetKind() != writv1.RecordKind_RECORD_KIND_KEY {
			return err
		}
		last = &writv1.KeyRecord{}
		acts = append(acts, 0)
		err := canonical.Unmarshal(record.GetBody(), last)
		acts[len(acts)-1] = last.GetAct()
		return err
	})
	if err != nil || len(acts) != 4 {
		t.Fatalf("%v, %v", acts, err)
	}
	for i := range acts {
		if want := []writv1.KeyAct{writv1.KeyAct_KEY_ACT_MADE, writv1.KeyAct_KEY_ACT_HELD, writv1.KeyAct_KEY_ACT_RELEASED, writv1.KeyAct_KEY_ACT_SHREDDED}[i]; acts[i] != want {
			t.Errorf("act %d is %v, want %v", i, acts[i], want)
		}
	}
	if last.GetTenant() != "acme" || last.GetBefore() != "2026-11-28" || last.GetBy() != "ann" || last.GetWhy() != "request 4711" || last.GetShredded() != 1 {
		t.Errorf("the record of the shredding: %v", last)
	}
}

func TestAVaultRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	dir, kek := filepath.Join(t.TempDir(), "vault"), newKek(t)
	v := open(t, dir, kek)
	made, err := v.Make(t.Context(), three("acme"))
	if err != nil {
		t.Fatal(err)
	}
	for name, days := range map[string]int{"no days": 0, "too many": vault.MostDays + 1} {
		if _, err := v.Make(t.Context(), vault.Request{Tenant: "acme", First: "2027-01-01", Days: days, By: "ann"}); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.Make(t.Context(), vault.Request{Tenant: "acme", First: "2027-01-01", Days: 1}); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("by nobody: %v", err)
	}
	if n := files(t, dir); n != 3 {
		t.Errorf("what was refused left keys: there are %d", n)
	}
	if _, err := v.Shred(t.Context(), "acne", "2026-11-28", "ann", ""); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("a tenant that is not there is shredded: %v", err)
	}
	if n, err := v.Shred(t.Context(), "acme", "2026-12-01", "ann", ""); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("days that have no keys yet are shredded: %d, %v", n, err)
	}
	if _, err := vault.Open(dir, kek); !errors.Is(err, ledger.ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	closed(t, v)
	if _, err := view(t, dir, newKek(t)).Private(t.Context(), made[0].ID()); !errors.Is(err, vault.ErrKek) {
		t.Errorf("under another key encryption key: %v", err)
	}
	if _, err := view(t, dir, nil).Private(t.Context(), made[0].ID()); !errors.Is(err, vault.ErrKek) {
		t.Errorf("under none: %v", err)
	}
	one, other := filepath.Join(dir, "keys", nameOf(made[0])), filepath.Join(dir, "keys", nameOf(made[1]))
	text, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(one, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if private, err := view(t, dir, kek).Private(t.Context(), made[0].ID()); err == nil {
		t.Errorf("the file of another day is taken for the key: %v", private.Day)
	}
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	if _, err := view(t, dir, kek).Private(t.Context(), made[0].ID()); !errors.Is(err, originals.ErrNoKey) {
		t.Errorf("a key whose file was lost: %v", err)
	}
	if _, err := vault.View(t.TempDir(), kek); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is no vault: %v", err)
	}
}

func nameOf(key originals.PublicKey) string {
	id := key.ID()
	const hex = "0123456789abcdef"
	name := ""
	for _, b := range id {
		name += string(hex[b>>4]) + string(hex[b&15])
	}
	return name + ".key"
}

func TestAKeyEncryptionKeyIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kek.key")
	if err := vault.MakeFileKek(path); err != nil {
		t.Fatal(err)
	}
	if err := vault.MakeFileKek(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key is written over: %v", err)
	}
	kek, err := vault.ReadFileKek(path)
	if err != nil {
		t.Fatal(err)
	}
	about := map[string]string{"a": "1"}
	wrapped, err := kek.Wrap(context.Background(), []byte("secret"), about)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := kek.Unwrap(context.Background(), wrapped, about); err != nil || string(plain) != "secret" {
		t.Errorf("%q, %v", plain, err)
	}
	if _, err := kek.Unwrap(context.Background(), wrapped, map[string]string{"a": "2"}); err == nil {
		t.Error("what is wrapped for one is unwrapped for another")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.ReadFileKek(path); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a key that others may read: %v", err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("abcd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.ReadFileKek(short); !errors.Is(err, vault.ErrKek) {
		t.Errorf("a key that is short: %v", err)
	}
}
