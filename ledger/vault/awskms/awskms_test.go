// SPDX-License-Identifier: Apache-2.0

package awskms_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/writ-dev/writ/internal/testenv"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/ledger/vault"
	"github.com/writ-dev/writ/ledger/vault/awskms"
)

func TestADaysKeyLiesUnderAKeyOfKMS(t *testing.T) {
	service := testenv.StartKMS(t)
	arn := service.MakeKey(t, "alias/writ-originals")
	kek, err := awskms.Open(t.Context(), "alias/writ-originals")
	if err != nil || kek.Name() != "aws-kms:"+arn {
		t.Fatalf("%v, %v", kek, err)
	}
	dir := filepath.Join(t.TempDir(), "vault")
	v, err := vault.Open(dir, kek)
	if err != nil {
		t.Fatal(err)
	}
	made, err := v.Make(t.Context(), vault.Request{Tenant: "acme", First: "2026-11-27", Days: 3, By: "ann"})
	if err != nil || len(made) != 3 {
		t.Fatalf("%v, %v", made, err)
	}
	if private, err := v.Private(t.Context(), made[1].ID()); err != nil || private.Day != "2026-11-28" {
		t.Errorf("%v, %v", private.Day, err)
	}
	service.MakeKey(t, "alias/other")
	other, err := awskms.Open(t.Context(), "alias/other")
	if err != nil {
		t.Fatal(err)
	}
	view, err := vault.View(dir, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := view.Private(t.Context(), made[1].ID()); !errors.Is(err, vault.ErrKek) {
		t.Errorf("under another key: %v", err)
	}
	// Shredding asks KMS nothing.
	service.Stop()
	if _, err := v.Private(t.Context(), made[1].ID()); err == nil || errors.Is(err, originals.ErrShredded) {
		t.Errorf("while KMS is away: %v", err)
	}
	if n, err := v.Shred(t.Context(), "acme", "2026-11-29", "ann", ""); err != nil || n != 2 {
		t.Errorf("shredded %d: %v", n, err)
	}
	if _, err := v.Private(t.Context(), made[1].ID()); !errors.Is(err, originals.ErrShredded) {
		t.Errorf("after that: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatKMSWrapsIsBoundToWhatItIsOf(t *testing.T) {
	service := testenv.StartKMS(t)
	service.MakeKey(t, "alias/writ-originals")
	kek, err := awskms.Open(t.Context(), "alias/writ-originals")
	if err != nil {
		t.Fatal(err)
	}
	about := map[string]string{"writ:day": "2026-11-27"}
	wrapped, err := kek.Wrap(t.Context(), []byte("secret"), about)
	if err != nil || bytes.Contains(wrapped, []byte("secret")) {
		t.Fatalf("%x, %v", wrapped, err)
	}
	if plain, err := kek.Unwrap(t.Context(), wrapped, about); err != nil || string(plain) != "secret" {
		t.Errorf("%q, %v", plain, err)
	}
	if plain, err := kek.Unwrap(t.Context(), wrapped, map[string]string{"writ:day": "2026-11-28"}); err == nil {
		t.Errorf("what is of one day is unwrapped for another: %q", plain)
	}
	if plain, err := kek.Unwrap(t.Context(), wrapped[:len(wrapped)-1], about); err == nil {
		t.Errorf("what was cut short is unwrapped: %q", plain)
	}
}

func TestKMSKeysThatCannotWrapAreRefused(t *testing.T) {
	service := testenv.StartKMS(t)
	if _, err := awskms.Open(t.Context(), "alias/nothing"); err == nil || !strings.Contains(err.Error(), "alias/nothing") {
		t.Errorf("no such key: %v", err)
	}
	signing, err := service.Client.CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := awskms.Open(t.Context(), aws.ToString(signing.KeyMetadata.KeyId)); err == nil || !strings.Contains(err.Error(), "SYMMETRIC_DEFAULT") {
		t.Errorf("a key that signs: %v", err)
	}
}
