// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// textTag marks a scalar in YAML that is the text of a JSON value itself, for
// tests of what is not one: `args: !json '{"a": 1, "a": 2}'`.
const textTag = "!json"

// jsonValues reads the YAML in the place of a writ.v1.Json as the JSON value it
// stands for. Numbers are kept as they are written.
type jsonValues struct{}

// Unmarshal reads node into message if that is a writ.v1.Json.
func (jsonValues) Unmarshal(node *yaml.Node, message proto.Message) (bool, error) {
	value, ok := message.(*writv1.Json)
	if !ok {
		return false, nil
	}
	if node.Kind == yaml.ScalarNode && node.Tag == textTag {
		value.Text = []byte(node.Value)
		return true, nil
	}
	text, err := appendJSON(nil, node)
	value.Text = text
	return true, err
}

// appendJSON writes the value of a node. Its shape was judged before.
func appendJSON(dst []byte, node *yaml.Node) ([]byte, error) {
	switch node.Kind {
	case yaml.MappingNode:
		return appendObject(dst, node)
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, entry := range node.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendJSON(dst, entry); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case yaml.ScalarNode:
		return appendScalar(dst, node)
	default:
		return nil, fmt.Errorf("line %d: this is not a JSON value", node.Line)
	}
}

func appendObject(dst []byte, node *yaml.Node) ([]byte, error) {
	dst = append(dst, '{')
	for i := 0; i+1 < len(node.Content); i += 2 {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = jsontext.AppendQuote(dst, node.Content[i].Value); err != nil {
			return nil, fmt.Errorf("line %d: the key is not a JSON string: %w", node.Line, err)
		}
		dst = append(dst, ':')
		if dst, err = appendJSON(dst, node.Content[i+1]); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func appendScalar(dst []byte, node *yaml.Node) ([]byte, error) {
	switch node.ShortTag() {
	case "!!null":
		return append(dst, "null"...), nil
	case "!!bool", "!!int", "!!float":
		text := jsontext.Value(node.Value)
		if !text.IsValid() {
			return nil, fmt.Errorf("line %d: %q is not written as in JSON; quote it if it is a string", node.Line, node.Value)
		}
		return append(dst, node.Value...), nil
	case "!!str", "!!timestamp":
		quoted, err := jsontext.AppendQuote(dst, node.Value)
		if err != nil {
			return nil, fmt.Errorf("line %d: this is not a JSON string: %w", node.Line, err)
		}
		return quoted, nil
	default:
		return nil, fmt.Errorf("line %d: the tag %s has no place in JSON", node.Line, node.Tag)
	}
}
