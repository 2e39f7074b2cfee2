// SPDX-License-Identifier: Apache-2.0

package tools

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"slices"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

// Load returns the tools of a set, by name: every rpc with (writ.v1.tool). The
// error joins all problems, each as file:line:column: text.
func Load(set *schemas.Set) ([]*Tool, error) {
	var all []*Tool
	var problems []error
	places := make(map[string]protoreflect.MethodDescriptor)
	for method := range set.Methods() {
		if !schemas.IsTool(method) {
			continue
		}
		tool, err := load(set, method)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if other, taken := places[tool.Name]; taken {
			problems = append(problems, schemas.At(method, "the name %s is taken by %s", tool.Name, other.FullName()))
			continue
		}
		places[tool.Name] = method
		all = append(all, tool)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	slices.SortFunc(all, func(a, b *Tool) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

func load(set *schemas.Set, method protoreflect.MethodDescriptor) (*Tool, error) {
	options := proto.GetExtension(method.Options(), writv1.E_Tool).(*writv1.ToolOptions)
	if err := checkOptions(method, options); err != nil {
		return nil, err
	}
	request, err := set.Message(method.Input())
	if err != nil {
		return nil, err
	}
	response, err := set.Message(method.Output())
	if err != nil {
		return nil, err
	}
	tool := &Tool{
		Name:         options.GetName(),
		Description:  schemas.Comment(method),
		Options:      options,
		Request:      request,
		Response:     response,
		SchemaDigest: schemaDigest(request, response),
	}
	if rule, ok := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule); ok && rule != nil {
		if tool.HTTP, err = newBinding(request, rule); err != nil {
			return nil, schemas.At(method, "google.api.http of %s: %v", tool.Name, err)
		}
	}
	return tool, nil
}

// checkOptions holds the options against their rules.
func checkOptions(method protoreflect.MethodDescriptor, options *writv1.ToolOptions) error {
	if method.IsStreamingClient() || method.IsStreamingServer() {
		return schemas.At(method, "%s streams; a tool takes one request and gives one response", method.FullName())
	}
	err := protovalidate.Validate(options)
	if err == nil {
		return nil
	}
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return schemas.At(method, "the options of %s: %v", method.FullName(), err)
	}
	problems := make([]error, 0, len(broken.Violations))
	for _, violation := range broken.Violations {
		problems = append(problems, schemas.At(method, "(writ.v1.tool).%s: %s",
			protovalidate.FieldPathString(violation.Proto.GetField()), violation.Proto.GetMessage()))
	}
	return errors.Join(problems...)
}

// schemaDigest names both types together.
func schemaDigest(request, response *schemas.Message) [32]byte {
	in, out := request.Digest(), response.Digest()
	text := append([]byte("writ/tool-schema/v1\n"), in[:]...)
	return sha256.Sum256(append(text, out[:]...))
}
