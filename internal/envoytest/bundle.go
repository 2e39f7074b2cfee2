// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// tools are typed for a payments API and an MCP server of files.
const toolsProto = `syntax = "proto3";
package desk.v1;

import "buf/validate/validate.proto";
import "google/api/annotations.proto";
import "writ/v1/options.proto";

service Payments {
  // Refund a payment.
  rpc IssueRefund(IssueRefundRequest) returns (IssueRefundResponse) {
    option (writ.v1.tool) = {name: "orders.return_money" risk: RISK_HIGH effect: TOOL_EFFECT_WRITE web: {upstream: "payments"}};
    option (google.api.http) = {post: "/v1/tenants/{tenant}/refunds" body: "*"};
  }
  // Look at a payment.
  rpc GetPayment(GetPaymentRequest) returns (GetPaymentResponse) {
    option (writ.v1.tool) = {name: "orders.look_up" risk: RISK_LOW effect: TOOL_EFFECT_READ web: {upstream: "payments"}};
    option (google.api.http) = {get: "/v1/tenants/{tenant}/payments/{payment}"};
  }
}

service Files {
  // Read a file.
  rpc ReadFile(ReadFileRequest) returns (ReadFileResponse) {
    option (writ.v1.tool) = {name: "files.read" risk: RISK_LOW effect: TOOL_EFFECT_READ
      mcp: {upstream: "files" tool: "read_file" definition_digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}};
  }
}

message IssueRefundRequest {
  string tenant = 1 [(buf.validate.field).string.min_len = 1, (writ.v1.field).binding = BINDING_TENANT];
  string payment = 2 [(buf.validate.field).string.pattern = "^p-[0-9]+$"];
  int64 amount = 3 [(buf.validate.field).int64 = {gt: 0, lte: 1000000}];
  string note = 4 [(buf.validate.field).string.max_len = 1000000, (writ.v1.field).sensitivity = SENSITIVITY_REDACT];
}

message IssueRefundResponse {
  string refund = 1 [(buf.validate.field).string.min_len = 1];
  int64 amount = 2;
  string card = 3 [(writ.v1.field).sensitivity = SENSITIVITY_REDACT];
}

message GetPaymentRequest {
  string tenant = 1 [(buf.validate.field).string.min_len = 1, (writ.v1.field).binding = BINDING_TENANT];
  string payment = 2 [(buf.validate.field).string.pattern = "^p-[0-9]+$"];
  bool expand = 3;
}

message GetPaymentResponse {
  string payment = 1;
  int64 amount = 2;
}

message ReadFileRequest {
  string path = 1 [(buf.validate.field).string = {min_len: 1, max_len: 1000000}];
}

message ReadFileResponse {
  string text = 1 [(writ.v1.field).sensitivity = SENSITIVITY_REDACT];
  string path = 2;
}
`

const grants = `grants:
  - name: agents
    effect: GRANT_EFFECT_ALLOW
    principals: {roles: [agent]}
    tools: [orders.return_money, orders.look_up, files.read]
`

const checks = `checks:
  - name: max_amount
    tools: [orders.return_money]
    expression: args.amount <= 10000
    on_failure: ON_FAILURE_DENY
    message: refunds are at most 100.00
  - name: approved_by_human
    tools: [orders.return_money]
    expression: args.amount <= 5000
    on_failure: ON_FAILURE_NEEDS_APPROVAL
    message: refunds over 50.00 need a human
  - name: nothing_sealed
    tools: [files.read]
    expression: '!args.path.startsWith("/sealed/")'
    on_failure: ON_FAILURE_NEEDS_APPROVAL
    message: sealed files need a human
`

// catalogueOf describes the two upstreams.
func catalogueOf(payments, files string, enforcement writv1.Enforcement, token string) string {
	var text strings.Builder
	text.WriteString("upstreams:\n")
	for _, upstream := range []struct{ name, address, protocol string }{
		{"payments", payments, "PROTOCOL_HTTP_JSON"}, {"files", files, "PROTOCOL_MCP"},
	} {
		fmt.Fprintf(&text, "  - name: %s\n    address: %q\n    protocol: %s\n    domains: [%s.internal]\n    enforcement: %s\n",
			upstream.name, upstream.address, upstream.protocol, upstream.name, enforcement)
		if token != "" {
			fmt.Fprintf(&text, "    decision_token: {kind: %s, audience: %s}\n", token, upstream.name)
		}
	}
	return text.String()
}

// writeBundle writes the bundle to a new directory.
func writeBundle(t testing.TB, catalogue string, more map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"bundle.yaml":       "name: envoytest\n",
		"protos/desk.proto": toolsProto,
		"grants/all.yaml":   grants,
		"checks/all.yaml":   checks,
		"catalogue.yaml":    catalogue,
	}
	maps.Copy(files, more)
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
