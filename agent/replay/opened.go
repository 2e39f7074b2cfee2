// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

// kept begins the paths of arguments in commitments.
const kept = "arguments."

// Opened returns a record and its body as they were before sensitive arguments were kept
// out, given these by the paths of their commitments: what [Decide] then decides is the
// call itself. Whoever opened them MUST have proved them. It returns false where the
// bundle's tool has no place for one of them.
func Opened(bundle *policy.Bundle, record *writv1.Record, body *writv1.DecisionRecord, values map[string][]byte) (*writv1.Record, *writv1.DecisionRecord, bool) {
	tool := bundle.Tool(body.GetTool())
	if tool == nil {
		return nil, nil, false
	}
	arguments := make(map[string][]byte, len(values))
	for path, value := range values {
		if at, ok := strings.CutPrefix(path, kept); ok {
			arguments[at] = value
		}
	}
	whole, placed, err := tool.Request.Restore(body.GetArguments(), arguments, schemas.Limits{})
	if err != nil || placed != len(arguments) {
		return nil, nil, false
	}
	record, body = proto.CloneOf(record), proto.CloneOf(body)
	body.Arguments = whole
	record.Commitments = slices.DeleteFunc(record.GetCommitments(), func(c *writv1.Commitment) bool {
		_, ok := values[c.GetPath()]
		return ok && strings.HasPrefix(c.GetPath(), kept)
	})
	return record, body, true
}
