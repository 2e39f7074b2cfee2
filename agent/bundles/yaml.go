// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// mostYAMLDepth bounds the nesting of a YAML file.
const mostYAMLDepth = 64

// document is one YAML file, read into its message.
type document struct {
	name     string
	lines    [][]rune
	root     *yaml.Node
	problems []Problem
}

// ReadYAML reads one YAML file into message and holds it against the message's
// rules. Every key is a field's own name, once; there are no anchors, no second
// document, no null. The error is an [Errors] with every problem.
func ReadYAML(name string, data []byte, message proto.Message) error {
	d := readYAML(name, data, message)
	if len(d.problems) > 0 {
		return Errors(order(d.problems))
	}
	return nil
}

func readYAML(name string, data []byte, message proto.Message) *document {
	d := decodeYAML(name, data, message)
	if len(d.problems) == 0 {
		d.validate(message)
	}
	return d
}

// decodeYAML is readYAML without the message's rules.
func decodeYAML(name string, data []byte, message proto.Message) *document {
	d := &document{name: name}
	if !d.parse(data) {
		return d
	}
	(&shape{document: d}).message(d.root, message.ProtoReflect().Descriptor(), 0)
	if len(d.problems) == 0 {
		d.unmarshal(data, message)
	}
	return d
}

// problem notes a problem at a node; none is the whole file.
func (d *document) problem(node *yaml.Node, format string, args ...any) {
	problem := Problem{File: d.name, Message: fmt.Sprintf(format, args...)}
	if node != nil {
		problem.Line, problem.Column = node.Line, node.Column
	}
	d.problems = append(d.problems, problem)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// parse reads the one document of the file.
func (d *document) parse(data []byte) bool {
	// YAML has line breaks that others do not see; a place told in one count of
	// lines is another in the other.
	if !utf8.Valid(data) || bytes.ContainsAny(data, "\r\u0085\u2028\u2029\uFEFF") {
		d.problem(nil, `the file must be UTF-8 with "\n" between lines, without a byte order mark`)
		return false
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		d.lines = append(d.lines, []rune(line))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var file, more yaml.Node
	err := decoder.Decode(&file)
	if err == nil {
		d.root = file.Content[0]
		err = decoder.Decode(&more)
	}
	switch {
	case d.root == nil && errors.Is(err, io.EOF):
		d.problem(nil, "the file is empty")
	case err == nil:
		d.problem(&more, "a file holds one document")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	default:
		return true
	}
	return false
}

// syntax notes an error of the YAML reader, which names the line in its text.
func (d *document) syntax(err error) {
	found := yamlLine.FindStringSubmatch(err.Error())
	if found == nil {
		d.problem(nil, "%v", err)
		return
	}
	problem := Problem{File: d.name, Message: found[2]}
	if line, err := strconv.Atoi(found[1]); err == nil {
		problem.Line, problem.Column = line, 1
	}
	d.problems = append(d.problems, problem)
}

var placed = regexp.MustCompile(`^:(\d+):(\d+) `)

// unmarshal reads the file into message.
func (d *document) unmarshal(data []byte, message proto.Message) {
	err := protoyaml.UnmarshalOptions{CustomUnmarshaler: jsonValues{}}.Unmarshal(data, message)
	if err == nil {
		return
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, one := range all {
		problem := Problem{File: d.name, Message: one.Error()}
		if at := placed.FindStringSubmatch(one.Error()); at != nil {
			problem.Line, _ = strconv.Atoi(at[1])
			problem.Column, _ = strconv.Atoi(at[2])
			problem.Message = errors.Unwrap(one).Error()
		}
		d.problems = append(d.problems, problem)
	}
}

// validate holds message against its rules.
func (d *document) validate(message proto.Message) {
	err := protovalidate.Validate(message)
	var broken *protovalidate.ValidationError
	switch {
	case err == nil:
	case errors.As(err, &broken):
		for _, violation := range broken.Violations {
			path := protovalidate.FieldPathString(violation.Proto.GetField())
			d.problem(d.closest(violation), "%s: %s", path, violation.Proto.GetMessage())
		}
	default:
		d.problem(d.root, "%v", err)
	}
}

// closest returns the node that a violation speaks of, or the nearest above it.
func (d *document) closest(violation *protovalidate.Violation) *yaml.Node {
	node := d.root
	for _, element := range violation.Proto.GetField().GetElements() {
		next := child(node, element.GetFieldName())
		if next == nil {
			return node
		}
		node = next
		switch {
		case element.GetSubscript() == nil:
		case node.Kind == yaml.SequenceNode && element.GetIndex() < uint64(len(node.Content)):
			node = node.Content[element.GetIndex()]
		case node.Kind == yaml.MappingNode:
			if next = child(node, element.GetStringKey()); next != nil {
				node = next
			}
		}
	}
	return node
}

// child returns the value of a key of a mapping, or nil.
func child(node *yaml.Node, key string) *yaml.Node {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

// item returns an entry of a list in a mapping, or nil.
func item(node *yaml.Node, list string, index int) *yaml.Node {
	entries := child(node, list)
	if entries == nil || index >= len(entries.Content) {
		return nil
	}
	return entries.Content[index]
}

// descend returns the node at a path of keys and places in lists, joined with dots; the
// deepest that is there.
func descend(node *yaml.Node, path string) *yaml.Node {
	for step := range strings.SplitSeq(path, ".") {
		next := child(node, step)
		if place, err := strconv.Atoi(step); err == nil && node != nil && node.Kind == yaml.SequenceNode && place < len(node.Content) {
			next = node.Content[place]
		}
		if next == nil {
			return node
		}
		node = next
	}
	return node
}

// shape refuses what YAML or protoyaml would take in a second form.
type shape struct {
	*document
}

// message judges a node that stands for a message.
func (s *shape) message(node *yaml.Node, message protoreflect.MessageDescriptor, depth int) {
	if !s.plain(node, depth) {
		return
	}
	if message.FullName() == jsonName {
		s.json(node, depth)
		return
	}
	if node.Kind != yaml.MappingNode {
		// A duration or a time; protoyaml tells what else is wrong.
		return
	}
	fields := message.Fields()
	s.mapping(node, func(key, value *yaml.Node) {
		field := fields.ByName(protoreflect.Name(key.Value))
		if field == nil {
			s.problem(key, "%s has no field %q", message.Name(), key.Value)
			return
		}
		s.field(value, field, depth+1)
	})
}

func (s *shape) field(node *yaml.Node, field protoreflect.FieldDescriptor, depth int) {
	switch {
	case (field.IsMap() || field.IsList()) && !s.plain(node, depth):
	case field.IsMap() && node.Kind == yaml.MappingNode:
		s.mapping(node, func(_, value *yaml.Node) { s.value(value, field.MapValue(), depth+1) })
	case field.IsList() && node.Kind == yaml.SequenceNode:
		for _, entry := range node.Content {
			s.value(entry, field, depth+1)
		}
	default:
		s.value(node, field, depth)
	}
}

func (s *shape) value(node *yaml.Node, field protoreflect.FieldDescriptor, depth int) {
	switch {
	case field.Message() != nil && !field.IsMap():
		s.message(node, field.Message(), depth)
	case !s.plain(node, depth):
	case field.Kind() == protoreflect.EnumKind && field.Enum().Values().ByName(protoreflect.Name(node.Value)) == nil:
		s.problem(node, "%s has no value %q", field.Enum().Name(), node.Value)
	case field.Kind() == protoreflect.StringKind && node.Kind == yaml.ScalarNode && node.ShortTag() != "!!str" && node.ShortTag() != "!!timestamp":
		s.problem(node, "a string is needed here; quote it")
	}
}

// mapping visits the pairs of a mapping, and refuses keys that occur twice.
func (s *shape) mapping(node *yaml.Node, visit func(key, value *yaml.Node)) {
	seen := make(map[string]bool, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			s.problem(key, "a key must be a name")
		case seen[key.Value]:
			s.problem(key, "the key %q occurs twice", key.Value)
		default:
			seen[key.Value] = true
			visit(key, value)
		}
	}
}

// plain refuses anchors, aliases, null and what is nested too deeply.
func (s *shape) plain(node *yaml.Node, depth int) bool {
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		s.problem(node, "anchors and aliases are not read; write the value out")
	case node.ShortTag() == "!!null":
		s.problem(node, "there is no value here; leave the key out")
	case depth > mostYAMLDepth:
		s.problem(node, "values are nested deeper than %d", mostYAMLDepth)
	default:
		return true
	}
	return false
}

// json judges a node that stands for a JSON value, where null is one.
func (s *shape) json(node *yaml.Node, depth int) {
	switch node.Kind {
	case yaml.MappingNode:
		s.mapping(node, func(_, value *yaml.Node) { s.jsonInner(value, depth+1) })
	case yaml.SequenceNode:
		for _, entry := range node.Content {
			s.jsonInner(entry, depth+1)
		}
	}
}

func (s *shape) jsonInner(node *yaml.Node, depth int) {
	if node.ShortTag() == "!!null" && node.Anchor == "" {
		return
	}
	if s.plain(node, depth) {
		s.json(node, depth)
	}
}

var jsonName = (&writv1.Json{}).ProtoReflect().Descriptor().FullName()
