// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"regexp"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestAnAgentIsPrintedWithWhatIsWrong(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC)
	agent := &writv1.Agent{
		Origin: "example.org/desk/\u202e1", Incarnation: "1", Epoch: 2, State: writv1.AgentState_AGENT_STATE_SILENT, LogId: []byte{1},
		ReceiveTime: timestamppb.New(now.Add(-90 * time.Second)), BundleName: "desk", BundleDigest: bytes.Repeat([]byte{0xab}, 32),
		Size: 7, Root: bytes.Repeat([]byte{0xcd}, 32), Findings: 3, FindingKinds: []string{"fork", "silence"},
		Heartbeat: &writv1.AgentHeartbeat{Time: timestamppb.New(now.Add(-time.Minute)), LagRecords: 4, LedgerBytes: 25, LedgerMaxBytes: 100},
	}
	finding := &writv1.Finding{Kind: "fork", Detail: "two\ntrees", HeldSize: 7, Count: 2, LastTime: timestamppb.New(now)}
	for name, c := range map[string]struct {
		print func(out *bytes.Buffer) error
		want  string
	}{
		"in a table": {
			func(out *bytes.Buffer) error { return printAgents(out, outputText, []*writv1.Agent{agent}, now) },
			`example.org/desk/\\u\{202e\}1 +silent +2 +desk@abababababab +7 +cdcdcdcdcdcd +1m30s ago +1m0s ago +4 records +25% +3 \(fork, silence\)\n$`,
		},
		"alone": {
			func(out *bytes.Buffer) error {
				return printAgent(out, &writv1.GetAgentResponse{Agent: agent, Findings: []*writv1.Finding{finding}}, now)
			},
			`(?s)^agent        example.org/desk/\\u\{202e\}1\nstate        silent\n.*finding      fork, 2 times, last 2026-01-31T09:00:00Z: two\\u\{a\}trees; 7 records were held`,
		},
		"as JSON": {
			func(out *bytes.Buffer) error { return printAgents(out, outputJSON, []*writv1.Agent{agent}, now) },
			`(?s)^\[\n.*"origin": "example.org/desk/\\u202e1".*"finding_kinds": \[`,
		},
		"of which there are none": {
			func(out *bytes.Buffer) error { return printAgents(out, outputJSON, nil, now) }, `^\[\]\n$`,
		},
	} {
		var out bytes.Buffer
		if err := c.print(&out); err != nil || !regexp.MustCompile(c.want).Match(out.Bytes()) {
			t.Errorf("%s: %v\n%s\nwant %s", name, err, out.String(), c.want)
		}
	}
}
