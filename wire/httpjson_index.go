// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strings"

	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/schemas"
)

// paths finds the tool of a method and path by the segments of the path, so that
// a call costs the same among a thousand tools as among ten. It finds what
// [tools.Binding.Match] of each tool in its turn would.
type paths struct {
	tools []*tools.Tool
	// roots are the first nodes, by method.
	roots map[string]*node
}

// node is a place in the paths' tree.
type node struct {
	// literals are the next places by the text of a segment, field the next one
	// after any segment.
	literals map[string]*node
	field    *node
	// ends are the tools whose path ends here, in their order.
	ends []int
}

// add adds a tool that has a binding.
func (p *paths) add(tool *tools.Tool) {
	if p.roots == nil {
		p.roots = make(map[string]*node)
	}
	at, ok := p.roots[tool.HTTP.Method()]
	if !ok {
		at = &node{}
		p.roots[tool.HTTP.Method()] = at
	}
	for _, literal := range tool.HTTP.Template() {
		at = at.next(literal)
	}
	at.ends = append(at.ends, len(p.tools))
	p.tools = append(p.tools, tool)
}

// next returns the place after a segment, which is made if it is not there.
func (n *node) next(literal string) *node {
	if literal == "" {
		if n.field == nil {
			n.field = &node{}
		}
		return n.field
	}
	if n.literals == nil {
		n.literals = make(map[string]*node)
	}
	if n.literals[literal] == nil {
		n.literals[literal] = &node{}
	}
	return n.literals[literal]
}

// match returns the first tool of a method and path, and what the path binds.
func (p *paths) match(method, path string) (*tools.Tool, []schemas.Param) {
	root, rest := p.roots[method], strings.TrimPrefix(path, "/")
	if root == nil || len(rest) == len(path) {
		return nil, nil
	}
	search := search{paths: p, method: method, path: path, found: len(p.tools)}
	search.walk(root, rest, true)
	if search.found == len(p.tools) {
		return nil, nil
	}
	return p.tools[search.found], search.params
}

// search is one look for a tool.
type search struct {
	*paths
	method, path string
	// found is the first tool so far that matches, params what its path binds.
	found  int
	params []schemas.Param
}

// walk follows what is left of the path; more says that a segment is.
func (s *search) walk(at *node, rest string, more bool) {
	if !more {
		s.end(at)
		return
	}
	segment, rest, more := strings.Cut(rest, "/")
	if next := at.literals[segment]; next != nil {
		s.walk(next, rest, more)
	}
	if at.field != nil {
		s.walk(at.field, rest, more)
	}
}

func (s *search) end(at *node) {
	for _, i := range at.ends {
		if i >= s.found {
			return
		}
		if params, ok := s.tools[i].HTTP.Match(s.method, s.path); ok {
			s.found, s.params = i, params
			return
		}
	}
}
