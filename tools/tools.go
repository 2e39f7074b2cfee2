// SPDX-License-Identifier: Apache-2.0

// Package tools is the catalogue: what a tool is, what a typed call of it is, and
// what runs it.
//
// A [Tool] is an rpc of a bundle's .proto with the option (writ.v1.tool); [Load]
// finds them in what package schemas compiled. A call of it is the tool's request
// message, read from [Arguments]. Tools that writ runs itself are run by an
// [Executor], of which each package below this one is one; executors see the typed
// call and nothing of who asks, what it may cost or where it is recorded.
//
// The package decides nothing and runs nothing.
//
//	set, err := schemas.Compile(ctx, os.DirFS("bundle/protos"), []string{"desk/v1/payments.proto"})
//	...
//	all, err := tools.Load(set)
//	...
//	message, err := all[0].Request.Read(arguments.JSON, arguments.Params, schemas.Limits{})
package tools

import (
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/tools/schemas"
)

// Tool is a typed operation. It does not change once loaded, and may be used by
// several goroutines.
type Tool struct {
	// Name is the name by which planners call it.
	Name string
	// Description is the comment before the rpc.
	Description string
	// Options are the tool's options, which keep their rules.
	Options *writv1.ToolOptions
	// Request types the arguments.
	Request *schemas.Message
	// Response types the result.
	Response *schemas.Message
	// HTTP is the binding of google.api.http; nil if the rpc has none.
	HTTP *Binding
	// SchemaDigest names the types of request and response, with all that bears on
	// validation.
	SchemaDigest [32]byte
}

// Arguments are what a call proposes, not yet read.
type Arguments struct {
	// JSON is one JSON object in writ's profile.
	JSON []byte
	// Params are arguments that stand elsewhere: in a path or query.
	Params []schemas.Param
}
