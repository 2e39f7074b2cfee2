// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// YAML returns message as Envoy reads it, fields in the order of the proto. The
// same message gives the same text.
func YAML(message proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", message.ProtoReflect().Descriptor().FullName(), err)
	}
	var document yaml.Node
	// JSON is YAML; a node keeps the order of its keys.
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("read the JSON form as YAML: %w", err)
	}
	blocks(&document)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), nil
}

// blocks puts every value in block style. A string stays quoted unless it reads
// as a string without.
func blocks(node *yaml.Node) {
	node.Style &^= yaml.FlowStyle
	if node.Kind == yaml.ScalarNode && node.Tag == "!!str" {
		node.Style = 0
	}
	for _, child := range node.Content {
		blocks(child)
	}
}
