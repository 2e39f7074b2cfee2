// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/writ-dev/writ/tools/schemas"
)

// buf returns the path of buf: $BUF, else the PATH's, else that of "make deps".
func buf(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("BUF"); path != "" {
		return path
	}
	if path, err := exec.LookPath("buf"); err == nil {
		return path
	}
	path, err := filepath.Abs("../../.venv/bin/buf")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("no buf: run \"make deps\", put buf on the PATH, or set BUF to its path: %v", err)
	}
	return path
}

// bufBuild builds the test's protos by buf, and what they import beside them.
func bufBuild(t *testing.T, program string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, text []byte) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("buf.yaml", []byte("version: v2\nmodules: [{path: tools}, {path: imported}]\n"))
	text, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(kindsFile)))
	if err != nil {
		t.Fatal(err)
	}
	write("tools/"+kindsFile, text)
	// Printed from what is linked, so that no schema registry is asked.
	for _, name := range []string{"buf/validate/validate.proto", "writ/v1/options.proto", "writ/v1/budget.proto", "writ/v1/provenance.proto"} {
		file, err := protoregistry.GlobalFiles.FindFileByPath(name)
		if err != nil {
			t.Fatal(err)
		}
		printed, err := (&protoprint.Printer{}).PrintProtoToString(file)
		if err != nil {
			t.Fatal(err)
		}
		write("imported/"+name, []byte(printed))
	}
	command := exec.CommandContext(t.Context(), program, "build", "--as-file-descriptor-set", "-o", "image.binpb")
	command.Dir = dir
	command.Env = append(os.Environ(), "BUF_CACHE_DIR="+filepath.Join(dir, "cache"))
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("buf build: %v\n%s", err, out)
	}
	image, err := os.ReadFile(filepath.Join(dir, "image.binpb"))
	if err != nil {
		t.Fatal(err)
	}
	built := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(image, built); err != nil {
		t.Fatal(err)
	}
	return built
}

func TestBufBuildsTheSameSchemas(t *testing.T) {
	t.Parallel()
	ours, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := schemas.FromDescriptors(bufBuild(t, buf(t)))
	if err != nil {
		t.Fatal(err)
	}
	file, err := ours.Files().FindFileByPath(kindsFile)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(protoreflect.MessageDescriptors)
	compared := 0
	walk = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			message := messages.Get(i)
			walk(message.Messages())
			if message.IsMapEntry() {
				continue
			}
			compared++
			if messageOf(t, ours, message.FullName()).Digest() != messageOf(t, theirs, message.FullName()).Digest() {
				t.Errorf("the digests of %s differ", message.FullName())
			}
		}
	}
	walk(file.Messages())
	if compared < 3 {
		t.Errorf("only %d messages were compared", compared)
	}
}
