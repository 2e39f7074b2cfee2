// SPDX-License-Identifier: Apache-2.0

// Package schemas types what tools take and give: it compiles the .proto files of
// a bundle, reads and writes messages in writ's JSON profile, validates them, and
// prints them as JSON Schema.
//
// It promises one reading. [Message.Read] takes each value in one form only, in a
// single pass from bytes to typed message: keys once, numbers that lose nothing,
// no null, nothing unknown, nothing after the end. [Message.Append] writes the one
// canonical text of a message, which Read gives back unchanged; two messages that
// differ have texts that differ. Errors name the field and what was expected, and
// never hold a value.
//
// The profile (docs/policy.md): the key of a field is its json_name where that is
// not what protobuf derives by itself, else the name as written; integers are
// numbers without fraction and exponent, 64-bit ones too; an enum is the first
// name of its value; bytes are padded standard base64; a Timestamp is RFC 3339
// text that ends in Z, a Duration decimal seconds that end in s, each with at most
// nine digits of fraction; a wrapper is its value.
//
// It does not know tools, callers or policy. Proto2, groups, extensions, and the
// well-known types that hold any JSON (Any, Struct, Value, ListValue, FieldMask)
// are refused by [Compile].
//
//	set, err := schemas.Compile(ctx, os.DirFS("protos"), []string{"desk/v1/payments.proto"})
//	...
//	request, err := set.Message(descriptor)
//	...
//	message, err := request.Read([]byte(`{"payment_id":"pay_1"}`), nil, schemas.Limits{})
package schemas
