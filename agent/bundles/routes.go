// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// binding is a method and path by which a tool is called over HTTP.
type binding struct {
	tool, method string
	segments     []string
	place        Problem
}

// routes refuses two tools of one upstream that a request could both be: which
// of them policy weighs and which of them the service runs could differ.
func (l *loader) routes() {
	ofUpstream := make(map[string][]binding)
	for name, rpc := range l.rpcs {
		upstream := rpc.options.GetWeb().GetUpstream()
		if upstream == "" {
			continue
		}
		for _, rule := range append(rpc.http.GetAdditionalBindings(), rpc.http) {
			if method, template := methodAndPath(rule); method != "" {
				ofUpstream[upstream] = append(ofUpstream[upstream], binding{name, method, segments(template), rpc.place})
			}
		}
	}
	for _, bindings := range ofUpstream {
		for i, a := range bindings {
			for _, b := range bindings[i+1:] {
				if a.tool == b.tool || a.method != b.method || !overlap(a.segments, b.segments) {
					continue
				}
				first, second := a, b
				if first.tool > second.tool {
					first, second = second, first
				}
				l.add(second.place.with("a request could be both %s and %s: their paths overlap", first.tool, second.tool))
			}
		}
	}
}

func methodAndPath(rule *annotations.HttpRule) (string, string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "GET", pattern.Get
	case *annotations.HttpRule_Put:
		return "PUT", pattern.Put
	case *annotations.HttpRule_Post:
		return "POST", pattern.Post
	case *annotations.HttpRule_Delete:
		return "DELETE", pattern.Delete
	case *annotations.HttpRule_Patch:
		return "PATCH", pattern.Patch
	case *annotations.HttpRule_Custom:
		return pattern.Custom.GetKind(), pattern.Custom.GetPath()
	}
	return "", ""
}

// segments returns the segments of a path template, with "*" for one of any text
// and "**" for any number: variables are their patterns.
func segments(template string) []string {
	var plain strings.Builder
	for template != "" {
		before, rest, found := strings.Cut(template, "{")
		plain.WriteString(before)
		if !found {
			break
		}
		variable, after, _ := strings.Cut(rest, "}")
		_, pattern, has := strings.Cut(variable, "=")
		if !has {
			pattern = "*"
		}
		plain.WriteString(pattern)
		template = after
	}
	return strings.Split(strings.TrimPrefix(plain.String(), "/"), "/")
}

// overlap says whether some path is of both templates. A last segment with a
// verb (":cancel") counts as a literal beside another, and as any text beside "*".
func overlap(a, b []string) bool {
	for i := 0; ; i++ {
		switch {
		case i == len(a) || i == len(b):
			return len(a) == len(b) || i < len(a) && a[i] == "**" || i < len(b) && b[i] == "**"
		case a[i] == "**" || b[i] == "**":
			return true
		case a[i] != b[i] && !open(a[i]) && !open(b[i]):
			return false
		}
	}
}

// open says whether a segment stands for more than one text.
func open(segment string) bool { return strings.Contains(segment, "*") }

// rpc is what a tool's rpc says.
type rpc struct {
	options *writv1.ToolOptions
	http    *annotations.HttpRule
	place   Problem
}

// readRPC returns what the rpc says, and whether it is a tool. Options of
// compiled descriptors may be messages of another Go type, so they are read anew.
func readRPC(method protoreflect.MethodDescriptor) (rpc, bool) {
	file := method.ParentFile()
	at := file.SourceLocations().ByDescriptor(method)
	r := rpc{place: Problem{File: protoFolder + "/" + file.Path(), Line: at.StartLine + 1, Column: at.StartColumn + 1}}
	options := &descriptorpb.MethodOptions{}
	encoded, err := proto.Marshal(method.Options())
	if err != nil || proto.Unmarshal(encoded, options) != nil {
		return r, false
	}
	r.options, _ = proto.GetExtension(options, writv1.E_Tool).(*writv1.ToolOptions)
	r.http, _ = proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	return r, r.options.GetName() != ""
}
