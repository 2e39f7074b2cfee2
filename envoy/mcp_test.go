// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/writ-dev/writ/internal/envoytest"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// caller sends an MCP client's requests through Envoy, as ann.
type caller struct{ stack *envoytest.Stack }

func (c caller) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Host = "files.internal"
	request.Header.Set("authorization", "Bearer "+c.stack.Issuer.Token("ann", "acme", "agent"))
	return http.DefaultTransport.RoundTrip(request)
}

// connect connects the official client, in one of the two generations.
func connect(t *testing.T, stack *envoytest.Stack, revision string) *mcp.ClientSession {
	t.Helper()
	return connectWith(t, stack, revision, nil)
}

func connectWith(t *testing.T, stack *envoytest.Stack, revision string, options *mcp.ClientOptions) *mcp.ClientSession {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, options)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: "http://" + stack.Address + "/mcp", HTTPClient: &http.Client{Transport: caller{stack}}, MaxRetries: -1,
	}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		t.Fatalf("connect with %s: %v\nEnvoy: %s", revision, err, stack.Proxy.Log())
	}
	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Errorf("close the session: %v", err)
		}
	})
	return session
}

func textOf(result *mcp.CallToolResult) string {
	var all []string
	for _, content := range result.Content {
		if text, ok := content.(*mcp.TextContent); ok {
			all = append(all, text.Text)
		}
	}
	return strings.Join(all, "|")
}

func TestTheOfficialMCPClientWorksInBothGenerations(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, enforcement writv1.Enforcement) {
		for i, revision := range []string{"2025-11-25", "2026-07-28"} {
			session := connect(t, stack, revision)
			if got := session.InitializeResult().ProtocolVersion; got != revision {
				t.Errorf("the client speaks %s, not %s", got, revision)
			}
			listed, err := session.ListTools(t.Context(), nil)
			want := 1 // The other tool is not in the bundle.
			if enforcement == authz {
				want = 2
			}
			if err != nil || len(listed.Tools) != want {
				t.Fatalf("%s: list: %v, %v", revision, listed, err)
			}
			result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "read_file", Arguments: map[string]any{"path": "/a"}})
			if err != nil || result.IsError {
				t.Fatalf("%s: call: %+v, %v\nEnvoy: %s", revision, result, err, stack.Proxy.Log())
			}
			redacted := strings.Contains(textOf(result), "[redacted]") && !strings.Contains(textOf(result), "secret")
			if redacted != (enforcement != authz) {
				t.Errorf("%s: the caller got %q", revision, textOf(result))
			}
			if _, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "delete_file", Arguments: map[string]any{"path": "/a"}}); err == nil || !strings.Contains(err.Error(), "TOOL_UNKNOWN") {
				t.Errorf("%s: an unknown tool: %v", revision, err)
			}
			denied, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "read_file", Arguments: map[string]any{"path": ""}})
			if err != nil || !denied.IsError || !strings.Contains(textOf(denied), "SCHEMA_RULE_VIOLATED") {
				t.Errorf("%s: a broken rule: %+v, %v", revision, denied, err)
			}
			if got := len(stack.Decisions(3 * (i + 1))); got != 3*(i+1) {
				t.Errorf("%s: %d decisions", revision, got)
			}
		}
	})
}

func TestAnMCPCallThatWaitsIsMadeOnceAHumanHasApproved(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, enforcement writv1.Enforcement) {
		goesOn, asked := "accept", 0
		session := connectWith(t, stack, "2026-07-28", &mcp.ClientOptions{
			ElicitationHandler: func(_ context.Context, request *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
				// The first time its user goes on too soon, then bob has approved.
				if asked++; asked == 2 && stack.Approve() != 1 {
					t.Error("nothing waits for an approval")
				}
				if !strings.Contains(request.Params.Message, "approval ") {
					t.Errorf("the user is told %q", request.Params.Message)
				}
				return &mcp.ElicitResult{Action: goesOn, Content: map[string]any{}}, nil
			},
		})
		// The client writes into the params of a call.
		sealed := func() *mcp.CallToolParams {
			return &mcp.CallToolParams{Name: "read_file", Arguments: map[string]any{"path": "/sealed/a"}}
		}
		result, err := session.CallTool(t.Context(), sealed())
		if err != nil || result.IsError || asked != 2 {
			t.Fatalf("asked %d times: %+v, %v\nEnvoy: %s", asked, result, err, stack.Proxy.Log())
		}
		for _, seen := range stack.Files.Seen() {
			if enforcement != authz && strings.Contains(seen.Body, "dev.writ/approval") {
				t.Errorf("the server got %s", seen.Body)
			}
		}
		goesOn = "decline"
		result, err = session.CallTool(t.Context(), sealed())
		if err != nil || !result.IsError || !strings.Contains(textOf(result), "APPROVAL_DENIED") || asked != 3 {
			t.Errorf("who declines: asked %d times: %+v, %v", asked, result, err)
		}
		// A client that shows no forms is told in a result.
		result, err = connect(t, stack, "2026-07-28").CallTool(t.Context(), sealed())
		if err != nil || !result.IsError || !strings.Contains(textOf(result), "needs approval") {
			t.Errorf("without forms: %+v, %v", result, err)
		}
	})
}

func TestHousekeepingNeedsSomebody(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		request := stack.Request("files", http.MethodPost, "/mcp", `{"jsonrpc":"2.0","id":5,"method":"tools/list"}`)
		request.Header.Del("authorization")
		answer := stack.Do(request)
		if answer.Status != http.StatusUnauthorized || !strings.Contains(answer.Body, `"id":5`) {
			t.Errorf("status %d: %s", answer.Status, answer.Body)
		}
		if seen := stack.Files.Seen(); len(seen) != 0 {
			t.Errorf("the upstream got %v", seen)
		}
		stack.Decisions(1)
	})
}

func TestAMirrorThatDisagreesIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		body := `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"delete_file","arguments":{"path":"/a"}}}`
		request := stack.Request("files", http.MethodPost, "/mcp", body)
		request.Header.Set("mcp-name", "read_file")
		answer := stack.Do(request)
		if answer.Status != http.StatusBadRequest || !strings.Contains(answer.Body, "-32020") {
			t.Errorf("status %d: %s", answer.Status, answer.Body)
		}
		if seen := stack.Files.Seen(); len(seen) != 0 {
			t.Errorf("the upstream got %v", seen)
		}
	})
}
