// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/bufbuild/protocompile/reporter"
	_ "google.golang.org/genproto/googleapis/api/annotations" // links google/api/annotations.proto
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// linked are the folders whose files come from the descriptors linked into the
// program, whatever a bundle holds under those names: the meaning of a rule must
// not be the bundle's to change.
var linked = []string{"buf/validate/", "google/api/", "google/protobuf/", "writ/v1/"}

// Set is a set of compiled files. Several goroutines may use it.
type Set struct {
	files *protoregistry.Files
	own   []protoreflect.FileDescriptor

	mu sync.Mutex
	// messages and plans, under mu, are made once each.
	messages map[protoreflect.FullName]*Message
	plans    map[protoreflect.FullName]*plan
	// rules validates every message that a tool takes or gives. It does not change.
	rules *validator
}

// Compile compiles the named files of fsys with what they import. Imports of
// buf/validate, google/api, google/protobuf and writ/v1 are those linked into the
// program. The error joins all problems, each as file:line:column: text.
//
// Every message that an rpc with (writ.v1.tool) takes or gives is held against
// what the JSON profile can say, and its rules are compiled.
func Compile(ctx context.Context, fsys fs.FS, names []string) (*Set, error) {
	var problems []error
	compiler := protocompile.Compiler{
		Resolver:       protocompile.ResolverFunc(func(name string) (protocompile.SearchResult, error) { return find(fsys, name) }),
		SourceInfoMode: protocompile.SourceInfoStandard,
		Reporter: reporter.NewReporter(func(err reporter.ErrorWithPos) error {
			problems = append(problems, err)
			return nil
		}, nil),
	}
	compiled, err := compiler.Compile(ctx, names...)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if err != nil {
		return nil, fmt.Errorf("compiling: %w", err)
	}
	files := make([]*descriptorpb.FileDescriptorProto, 0, len(compiled))
	for _, file := range compiled {
		files = append(files, closure(file, make(map[string]bool))...)
	}
	return newSet(files)
}

// find returns a linked file, or the source of one of the bundle.
func find(fsys fs.FS, name string) (protocompile.SearchResult, error) {
	if isLinked(name) {
		file, err := protoregistry.GlobalFiles.FindFileByPath(name)
		return protocompile.SearchResult{Desc: file}, err
	}
	source, err := fsys.Open(name)
	return protocompile.SearchResult{Source: source}, err
}

func isLinked(name string) bool {
	for _, folder := range linked {
		if strings.HasPrefix(name, folder) {
			return true
		}
	}
	return false
}

// closure returns the files of a bundle that file rests on, and file itself, each
// after what it imports.
func closure(file linker.File, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] || isLinked(file.Path()) {
		return nil
	}
	seen[file.Path()] = true
	var files []*descriptorpb.FileDescriptorProto
	for i := range file.Imports().Len() {
		if imported := file.FindImportByPath(file.Imports().Get(i).Path()); imported != nil {
			files = append(files, closure(imported, seen)...)
		}
	}
	return append(files, protoutil.ProtoFromFileDescriptor(file))
}

// FromDescriptors returns the set of files that were compiled before, such as by
// "buf build". A linked file among them is passed over.
func FromDescriptors(files *descriptorpb.FileDescriptorSet) (*Set, error) {
	return newSet(files.GetFile())
}

// newSet builds descriptors anew, so that options are of the linked Go types
// whoever compiled them.
func newSet(files []*descriptorpb.FileDescriptorProto) (*Set, error) {
	s := &Set{
		files:    &protoregistry.Files{},
		messages: make(map[protoreflect.FullName]*Message),
		plans:    make(map[protoreflect.FullName]*plan),
	}
	for _, file := range files {
		if isLinked(file.GetName()) {
			continue
		}
		if err := s.add(file); err != nil {
			return nil, err
		}
	}
	return s, s.check()
}

// add adds a file whose imports were added.
func (s *Set) add(file *descriptorpb.FileDescriptorProto) error {
	if _, err := s.files.FindFileByPath(file.GetName()); err == nil {
		return nil
	}
	encoded, err := proto.Marshal(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file.GetName(), err)
	}
	relinked := &descriptorpb.FileDescriptorProto{}
	if err := proto.Unmarshal(encoded, relinked); err != nil {
		return fmt.Errorf("%s: %w", file.GetName(), err)
	}
	descriptor, err := protodesc.NewFile(relinked, resolver{s.files})
	if err != nil {
		return fmt.Errorf("%s: %w", file.GetName(), err)
	}
	s.own = append(s.own, descriptor)
	return s.register(descriptor)
}

// register adds a file and the linked files it imports.
func (s *Set) register(file protoreflect.FileDescriptor) error {
	if _, err := s.files.FindFileByPath(file.Path()); err == nil {
		return nil
	}
	for i := range file.Imports().Len() {
		if err := s.register(file.Imports().Get(i).FileDescriptor); err != nil {
			return err
		}
	}
	if err := s.files.RegisterFile(file); err != nil {
		return fmt.Errorf("%s: %w", file.Path(), err)
	}
	return nil
}

// resolver finds what files import: linked files first.
type resolver struct{ files *protoregistry.Files }

func (r resolver) FindFileByPath(name string) (protoreflect.FileDescriptor, error) {
	if isLinked(name) {
		return protoregistry.GlobalFiles.FindFileByPath(name)
	}
	return r.files.FindFileByPath(name)
}

func (r resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if found, err := r.files.FindDescriptorByName(name); err == nil {
		return found, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// check plans every message that a tool takes or gives and compiles its rules.
func (s *Set) check() error {
	var problems []error
	var used []protoreflect.MessageDescriptor
	for method := range s.Methods() {
		if !IsTool(method) {
			continue
		}
		for _, message := range []protoreflect.MessageDescriptor{method.Input(), method.Output()} {
			if _, err := s.plan(message); err != nil {
				problems = append(problems, err)
			}
			used = append(used, message)
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	var err error
	s.rules, err = newValidator(used)
	return err
}

// Methods yields the rpcs of the bundle's files, in the order of the files.
func (s *Set) Methods() func(func(protoreflect.MethodDescriptor) bool) {
	return func(yield func(protoreflect.MethodDescriptor) bool) {
		for _, file := range s.own {
			for i := range file.Services().Len() {
				methods := file.Services().Get(i).Methods()
				for j := range methods.Len() {
					if !yield(methods.Get(j)) {
						return
					}
				}
			}
		}
	}
}

// IsTool reports whether an rpc has the option (writ.v1.tool).
func IsTool(method protoreflect.MethodDescriptor) bool {
	return proto.HasExtension(method.Options(), writv1.E_Tool)
}

// Files returns the bundle's files and those they import.
func (s *Set) Files() *protoregistry.Files { return s.files }

// Message returns the type of a message of the set. It is compiled once.
func (s *Set) Message(descriptor protoreflect.MessageDescriptor) (*Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := descriptor.FullName()
	if m, ok := s.messages[name]; ok {
		return m, nil
	}
	p, err := s.plan(descriptor)
	if err != nil {
		return nil, err
	}
	rules := s.rules
	if !rules.has(name) {
		if rules, err = newValidator([]protoreflect.MessageDescriptor{descriptor}); err != nil {
			return nil, err
		}
	}
	m := &Message{plan: p, rules: rules}
	m.digest = digest(descriptor)
	m.schema = printSchema(p)
	s.messages[name] = m
	return m, nil
}

// At returns a problem with a descriptor as file:line:column: text.
func At(descriptor protoreflect.Descriptor, format string, args ...any) error {
	file := descriptor.ParentFile()
	place := file.SourceLocations().ByDescriptor(descriptor)
	text := fmt.Sprintf(format, args...)
	return fmt.Errorf("%s:%d:%d: %s", file.Path(), place.StartLine+1, place.StartColumn+1, text)
}

// Message is one compiled request or response type. Nothing in it changes;
// several goroutines may use it.
type Message struct {
	plan   *plan
	rules  *validator
	digest [32]byte
	schema []byte
}

// Descriptor returns the message's descriptor.
func (m *Message) Descriptor() protoreflect.MessageDescriptor { return m.plan.descriptor }

// Digest returns the digest of the message's type: the closure of the descriptors
// it reaches, with the options that bear on validation, and nothing of comments,
// files and positions.
func (m *Message) Digest() [32]byte { return m.digest }

// JSONSchema returns the type as JSON Schema 2020-12. The caller MUST NOT change it.
func (m *Message) JSONSchema() []byte { return m.schema }
