// SPDX-License-Identifier: Apache-2.0

package approvals_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

func newKey(t *testing.T, user string) (*approvals.Key, []byte) {
	t.Helper()
	text, _, err := note.GenerateKey(rand.Reader, user)
	if err != nil {
		t.Fatal(err)
	}
	key, err := approvals.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.SealKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := approvals.ParseSealKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, raw
}

func TestWhatIsSealedIsOpenedByItsRecipientsAlone(t *testing.T) {
	t.Parallel()
	ann, toAnn := newKey(t, "ann")
	bob, toBob := newKey(t, "bob")
	eve, _ := newKey(t, "eve")
	secret := []*writv1.SealedArgument{{Path: "iban", Value: []byte(`"DE02120300000000202051"`)}, {Path: "pins[0]", Value: []byte("4711")}}
	id := strings.Repeat("a", 32)
	sealed, err := approvals.Seal(id, secret, [][]byte{toAnn, toBob})
	if err != nil {
		t.Fatal(err)
	}
	text, err := proto.Marshal(sealed)
	if err != nil || strings.Contains(string(text), "DE021203") {
		t.Errorf("what is sealed tells what it is: %v", err)
	}
	subject := &writv1.ApprovalSubject{ApprovalId: id, Request: &writv1.ApprovalRequest{Sealed: sealed}}
	for name, key := range map[string]*approvals.Key{"ann": ann, "bob": bob} {
		opened, err := key.Open(subject)
		if err != nil || len(opened) != 2 || !proto.Equal(opened[0], secret[0]) || !proto.Equal(opened[1], secret[1]) {
			t.Errorf("%s opens %v: %v", name, opened, err)
		}
	}
	if opened, err := eve.Open(subject); !errors.Is(err, approvals.ErrNotSealed) {
		t.Errorf("eve opens %v: %v", opened, err)
	}
	again, err := approvals.Seal(id, secret, [][]byte{toAnn})
	if err != nil || string(again.GetDigest()) == string(sealed.GetDigest()) || string(again.GetCiphertext()) == string(sealed.GetCiphertext()) {
		t.Errorf("the same arguments are known again by what they are sealed as: %v", err)
	}
}

func TestNothingIsSealedToNobodyAndNothingThatIsTooLarge(t *testing.T) {
	t.Parallel()
	_, to := newKey(t, "ann")
	one := []*writv1.SealedArgument{{Path: "a", Value: []byte("1")}}
	large := []*writv1.SealedArgument{{Path: "a", Value: make([]byte, approvals.MostSealedBytes)}}
	for name, c := range map[string]struct {
		arguments []*writv1.SealedArgument
		to        [][]byte
	}{
		"nobody": {one, nil}, "nothing": {nil, [][]byte{to}}, "too much": {large, [][]byte{to}},
	} {
		if sealed, err := approvals.Seal("a", c.arguments, c.to); sealed != nil || err != nil {
			t.Errorf("%s: %v, %v", name, sealed, err)
		}
	}
	for _, text := range []string{"", "x", "AAAA", strings.Repeat("A", 44)} {
		if raw, err := approvals.ParseSealKey(text); err == nil && len(raw) != 32 {
			t.Errorf("%q is read as a key: %x", text, raw)
		}
	}
}
