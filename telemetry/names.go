// SPDX-License-Identifier: Apache-2.0

package telemetry

// schemaURL is the version of the conventions that the names below are of: those for
// generative AI, which are in development, and whose names still move
// (github.com/open-telemetry/semantic-conventions-genai, model/manifest.yaml).
const schemaURL = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"

// scopeName is the instrumentation scope.
const scopeName = "github.com/writ-dev/writ"

// Names of the conventions.
const (
	genAIOperation    = "gen_ai.operation.name"
	genAITool         = "gen_ai.tool.name"
	genAIConversation = "gen_ai.conversation.id"
	mcpMethod         = "mcp.method.name"
	errorType         = "error.type"
	httpStatus        = "http.response.status_code"
	serviceName       = "service.name"
	serviceVersion    = "service.version"
	serviceInstance   = "service.instance.id"

	executeTool = "execute_tool"
	toolsCall   = "tools/call"

	executeToolDuration  = "gen_ai.execute_tool.duration"
	mcpOperationDuration = "mcp.client.operation.duration"
)

// Names of writ's own.
const (
	writDecision      = "writ.decision.id"
	writVerdict       = "writ.verdict"
	writReason        = "writ.reason"
	writFailed        = "writ.checks.failed"
	writBundle        = "writ.bundle.digest"
	writRecord        = "writ.record.index"
	writSurface       = "writ.surface"
	writOutcome       = "writ.outcome.state"
	writRequestBytes  = "writ.request.bytes"
	writResponseBytes = "writ.response.bytes"
	writOrigin        = "writ.log.origin"
	writLog           = "writ.log.id"

	decide           = "decide"
	decisionDuration = "writ.decision.duration"
)

// OpenInference's kind of a span, by which viewers of LLM traces choose how to show one.
const (
	openInferenceKind = "openinference.span.kind"
	kindGuardrail     = "GUARDRAIL"
	kindTool          = "TOOL"
)
