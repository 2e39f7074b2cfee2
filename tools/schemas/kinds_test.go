// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/proto/reasons"
	"github.com/writ-dev/writ/tools/schemas"
)

const kindsFile = "kinds/v1/kinds.proto"

var kinds = sync.OnceValues(func() (*schemas.Set, error) {
	return schemas.Compile(context.Background(), os.DirFS("testdata"), []string{kindsFile})
})

// typeOf returns a message of the test's protos.
func typeOf(t testing.TB, name protoreflect.FullName) *schemas.Message {
	t.Helper()
	set, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	return messageOf(t, set, name)
}

func messageOf(t testing.TB, set *schemas.Set, name protoreflect.FullName) *schemas.Message {
	t.Helper()
	found, err := set.Files().FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := set.Message(found.(protoreflect.MessageDescriptor))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t testing.TB, m *schemas.Message, text string) protoreflect.Message {
	t.Helper()
	message, err := m.Read([]byte(text), nil, schemas.Limits{})
	if err != nil {
		t.Fatalf("Read(%s): %v", text, err)
	}
	return message
}

// refusalOf returns reason and field of a refusal, as "REASON field".
func refusalOf(err error) string {
	if err == nil {
		return ""
	}
	refusal := reasons.Of(err)
	if refusal.Field == "" {
		return reasons.Name(refusal.Reason)
	}
	return reasons.Name(refusal.Reason) + " " + refusal.Field
}
