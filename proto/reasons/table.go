// SPDX-License-Identifier: Apache-2.0

package reasons

import (
	"google.golang.org/grpc/codes"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// table is the one place that says what a reason is on each wire. HTTP status
// 499 is nginx's "client closed request"; JSON-RPC codes are those of its
// specification and of MCP 2026-07-28, and -32001 to -32009 are writ's own, in
// the range both leave to implementations.
var table = map[writv1.Reason]Wire{
	writv1.Reason_REASON_GRANTED:                        {GRPC: codes.OK, HTTP: 200, JSONRPC: 0, Retry: RetryNever},
	writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED:      {GRPC: codes.Unauthenticated, HTTP: 401, JSONRPC: -32001, Retry: RetryNever},
	writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID:        {GRPC: codes.Unauthenticated, HTTP: 401, JSONRPC: -32001, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_MALFORMED:               {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32700, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_DUPLICATE_KEY:           {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32700, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_INVALID_UTF8:            {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32700, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_TOO_LARGE:               {GRPC: codes.InvalidArgument, HTTP: 413, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_TOO_DEEP:                {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32700, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_COMPRESSED:              {GRPC: codes.InvalidArgument, HTTP: 415, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_PARTIAL_BODY:            {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_CONTENT_TYPE:            {GRPC: codes.InvalidArgument, HTTP: 415, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_METHOD_UNKNOWN:          {GRPC: codes.Unimplemented, HTTP: 404, JSONRPC: -32601, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_PROTOCOL:                {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_HEADER_MISMATCH:         {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32020, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_HEADER_CONFLICT:         {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_PATH_AMBIGUOUS:          {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_DECODE_ENVELOPE_INVALID:        {GRPC: codes.InvalidArgument, HTTP: 400, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_TOOL_UNKNOWN:                   {GRPC: codes.NotFound, HTTP: 404, JSONRPC: -32602, Retry: RetryNever},
	writv1.Reason_REASON_TOOL_PIN_CHANGED:               {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_TOOL_PIN_UNSEEN:                {GRPC: codes.Unavailable, HTTP: 503, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_TOOL_NOT_EXECUTABLE:            {GRPC: codes.FailedPrecondition, HTTP: 409, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_SCHEMA_UNKNOWN_FIELD:           {GRPC: codes.InvalidArgument, HTTP: 422, JSONRPC: -32602, Retry: RetryNever},
	writv1.Reason_REASON_SCHEMA_TYPE_MISMATCH:           {GRPC: codes.InvalidArgument, HTTP: 422, JSONRPC: -32602, Retry: RetryNever},
	writv1.Reason_REASON_SCHEMA_NUMBER_OUT_OF_RANGE:     {GRPC: codes.InvalidArgument, HTTP: 422, JSONRPC: -32602, Retry: RetryNever},
	writv1.Reason_REASON_SCHEMA_RULE_VIOLATED:           {GRPC: codes.InvalidArgument, HTTP: 422, JSONRPC: -32602, Retry: RetryNever},
	writv1.Reason_REASON_SCHEMA_FIELD_TWICE:             {GRPC: codes.InvalidArgument, HTTP: 422, JSONRPC: -32602, Retry: RetryNever},
	writv1.Reason_REASON_SCHEMA_RESPONSE_INVALID:        {GRPC: codes.Internal, HTTP: 502, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_GRANT_MISSING:                  {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_GRANT_DENIED:                   {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_GRANT_TENANT_ISOLATION:         {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_CONDITION_CHECK_FAILED:         {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_CONDITION_CHECK_ERROR:          {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_CONDITION_CLAIM_MISMATCH:       {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_CONDITION_PROVENANCE:           {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_DATA_SECRET:                    {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_DATA_CLASSIFIED:                {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_DATA_FOREIGN_TENANT:            {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_DATA_UNREADABLE:                {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_ADMISSION_SESSION_UNKNOWN:      {GRPC: codes.NotFound, HTTP: 404, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_BUDGET_SESSION_LIMIT:           {GRPC: codes.ResourceExhausted, HTTP: 429, JSONRPC: -32005, Retry: RetryLater},
	writv1.Reason_REASON_BUDGET_EXHAUSTED:               {GRPC: codes.ResourceExhausted, HTTP: 429, JSONRPC: -32005, Retry: RetryLater},
	writv1.Reason_REASON_APPROVAL_REQUIRED:              {GRPC: codes.FailedPrecondition, HTTP: 403, JSONRPC: -32006, Retry: RetryLater},
	writv1.Reason_REASON_ADMISSION_CONTENDED:            {GRPC: codes.Aborted, HTTP: 409, JSONRPC: -32007, Retry: RetryLater},
	writv1.Reason_REASON_ADMISSION_ALREADY_RELEASED:     {GRPC: codes.AlreadyExists, HTTP: 409, JSONRPC: -32008, Retry: RetryNever},
	writv1.Reason_REASON_ADMISSION_IN_PROGRESS:          {GRPC: codes.Aborted, HTTP: 409, JSONRPC: -32007, Retry: RetryLater},
	writv1.Reason_REASON_ADMISSION_OUTCOME_UNKNOWN:      {GRPC: codes.AlreadyExists, HTTP: 409, JSONRPC: -32008, Retry: RetryNever},
	writv1.Reason_REASON_ADMISSION_KEY_REUSED:           {GRPC: codes.AlreadyExists, HTTP: 409, JSONRPC: -32008, Retry: RetryNever},
	writv1.Reason_REASON_ADMISSION_BODY_CHANGED:         {GRPC: codes.PermissionDenied, HTTP: 403, JSONRPC: -32002, Retry: RetryNever},
	writv1.Reason_REASON_ADMISSION_RESULT_NOT_KEPT:      {GRPC: codes.AlreadyExists, HTTP: 409, JSONRPC: -32008, Retry: RetryNever},
	writv1.Reason_REASON_AGENT_INTERNAL:                 {GRPC: codes.Internal, HTTP: 500, JSONRPC: -32603, Retry: RetryNever},
	writv1.Reason_REASON_AGENT_UNIMPLEMENTED:            {GRPC: codes.Unimplemented, HTTP: 501, JSONRPC: -32009, Retry: RetryNever},
	writv1.Reason_REASON_AGENT_OVERLOADED:               {GRPC: codes.ResourceExhausted, HTTP: 429, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_AGENT_DRAINING:                 {GRPC: codes.Unavailable, HTTP: 503, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_AGENT_NO_BUNDLE:                {GRPC: codes.Unavailable, HTTP: 503, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_AGENT_DEADLINE:                 {GRPC: codes.DeadlineExceeded, HTTP: 504, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_LEDGER_UNAVAILABLE:             {GRPC: codes.Unavailable, HTTP: 503, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_LEDGER_FULL:                    {GRPC: codes.Unavailable, HTTP: 503, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_LEDGER_NOT_ACKNOWLEDGED:        {GRPC: codes.Unavailable, HTTP: 503, JSONRPC: -32003, Retry: RetryLater},
	writv1.Reason_REASON_LEDGER_RECORD_TOO_LARGE:        {GRPC: codes.InvalidArgument, HTTP: 413, JSONRPC: -32600, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_FAILED:               {GRPC: codes.Internal, HTTP: 502, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_TIMEOUT:              {GRPC: codes.DeadlineExceeded, HTTP: 504, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_LIMIT_EXCEEDED:       {GRPC: codes.ResourceExhausted, HTTP: 502, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_SANDBOX_UNAVAILABLE:  {GRPC: codes.FailedPrecondition, HTTP: 503, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_OUTPUT_INVALID:       {GRPC: codes.Internal, HTTP: 502, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_UPSTREAM_UNAVAILABLE: {GRPC: codes.Unavailable, HTTP: 502, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_UPSTREAM_STATUS:      {GRPC: codes.Unknown, HTTP: 502, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_PROGRAM_CHANGED:      {GRPC: codes.FailedPrecondition, HTTP: 503, JSONRPC: -32004, Retry: RetryNever},
	writv1.Reason_REASON_EXECUTION_CANCELLED:            {GRPC: codes.Canceled, HTTP: 499, JSONRPC: -32004, Retry: RetryNever},
}
