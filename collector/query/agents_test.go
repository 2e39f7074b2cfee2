// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/collector/store"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// agentReaders are all readers of a desk's agents, which say the same.
func (d *desk) agentReaders(t *testing.T, now time.Time) map[string]query.AgentReader {
	t.Helper()
	hearing := query.Hearing{Silence: time.Minute, Clock: func() time.Time { return now }}
	h := openHallAt(t, d, hearing, &writv1.Reader{SpiffeId: operator, Tenants: []string{"*"}, Roles: []writv1.ReaderRole{writv1.ReaderRole_READER_ROLE_OPERATOR}})
	return map[string]query.AgentReader{
		"the store":               query.AgentsFromStore(d.store, hearing),
		"the store's directory":   query.AgentsFromStoreDir(d.storeDir, hearing),
		"the collector's service": query.AgentsFromService(writv1.NewAgentServiceClient(h.dial(t, operator))),
	}
}

// putTime is when a desk's store stores.
var putTime = morning.Add(time.Hour)

func TestAnAgentIsToldOfAsItsLedgerTells(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	beat := ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_HEARTBEAT, Body: &writv1.HeartbeatRecord{Acknowledged: 2, LedgerBytes: 10, LedgerMaxBytes: 100}}
	d.write(t, aDay()[:6]...)
	d.write(t, beat, decision(4, "globex", "mail.send", "alice", "", writv1.Verdict_VERDICT_ALLOW))
	for _, kind := range []string{"gap", "fork", "gap"} {
		if err := d.store.AddFinding(t.Context(), store.Finding{Origin: d.held.Origin, Kind: kind, Detail: "x", HeldSize: d.held.Size, HeldRoot: d.held.Root, Time: morning}); err != nil {
			t.Fatal(err)
		}
	}
	logID := ledger.LogID(d.held.Origin)
	_, head, err := d.ledger.Head()
	if err != nil {
		t.Fatal(err)
	}
	want := &writv1.Agent{
		Origin: d.held.Origin, LogId: logID[:], Incarnation: d.held.Origin[len("example.org/agent/desk/"):], Epoch: 1, State: writv1.AgentState_AGENT_STATE_HEARD,
		ReceiveTime: timestamppb.New(putTime), BundleName: "desk", BundleDigest: make([]byte, 32), Size: 8, Root: d.held.Root, Head: head,
		Heartbeat: &writv1.AgentHeartbeat{Time: timestamppb.New(morning.Add(6 * time.Second)), LagRecords: 4, LedgerBytes: 10, LedgerMaxBytes: 100},
		Findings:  2, FindingKinds: []string{"fork", "gap"},
	}
	for name, r := range d.agentReaders(t, putTime.Add(time.Second)) {
		listed, err := r.ListAgents(t.Context(), &writv1.ListAgentsRequest{})
		if diff := cmp.Diff(&writv1.ListAgentsResponse{Agents: []*writv1.Agent{want}}, listed, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%s lists %v (-want +got):\n%s", name, err, diff)
		}
		shown, err := r.GetAgent(t.Context(), &writv1.GetAgentRequest{Origin: d.held.Origin})
		if err != nil || len(shown.GetFindings()) != 2 || shown.GetFindings()[0].GetKind() != "gap" || shown.GetFindings()[0].GetCount() != 2 || len(shown.GetFindings()[0].GetHeldHead()) == 0 {
			t.Errorf("%s shows %v, %v", name, shown, err)
		}
		if _, err := r.GetAgent(t.Context(), &writv1.GetAgentRequest{Origin: "nobody"}); !errors.Is(err, query.ErrNoAgent) {
			t.Errorf("%s: an agent that there is not: %v", name, err)
		}
		if _, err := r.GetAgent(t.Context(), &writv1.GetAgentRequest{}); !errors.Is(err, query.ErrInvalid) {
			t.Errorf("%s: an agent without a name: %v", name, err)
		}
	}
}

func TestAnAgentIsHeardSilentOrEnded(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write(t, aDay()[:3]...)
	state := func(after time.Duration) writv1.AgentState {
		hearing := query.Hearing{Silence: time.Minute, Clock: func() time.Time { return putTime.Add(after) }}
		shown, err := query.AgentsFromStore(d.store, hearing).GetAgent(t.Context(), &writv1.GetAgentRequest{Origin: d.held.Origin})
		if err != nil {
			t.Fatal(err)
		}
		return shown.GetAgent().GetState()
	}
	if got := state(59 * time.Second); got != writv1.AgentState_AGENT_STATE_HEARD {
		t.Errorf("within its time it is %s", got)
	}
	if got := state(time.Minute); got != writv1.AgentState_AGENT_STATE_SILENT {
		t.Errorf("after its time it is %s", got)
	}
	d.write(t, ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_END, Body: &writv1.EndRecord{}})
	if got := state(time.Hour); got != writv1.AgentState_AGENT_STATE_ENDED {
		t.Errorf("after its end it is %s", got)
	}
}

// manyAgents has as many agents as are asked for, and no records of theirs.
type manyAgents struct{ names []string }

func (m manyAgents) Agents(_ context.Context, after string, limit int) (out []store.Agent, err error) {
	for _, name := range m.names {
		if name > after && len(out) < limit {
			out = append(out, store.Agent{Ledger: store.Ledger{Origin: name}})
		}
	}
	return out, nil
}

func (m manyAgents) Agent(context.Context, string) (a store.Agent, held bool, err error) {
	return a, false, nil
}

func (m manyAgents) Findings(context.Context, string) ([]store.Finding, error) { return nil, nil }

func TestAgentsComeInPages(t *testing.T) {
	t.Parallel()
	source := manyAgents{}
	for i := range 7 {
		source.names = append(source.names, fmt.Sprintf("agent/%d", i))
	}
	r := query.AgentsFromStore(source, query.Hearing{})
	for size, want := range map[int32]int{1: 7, 3: 3, 7: 1, 0: 1} {
		var names []string
		request, pages := &writv1.ListAgentsRequest{PageSize: size}, 0
		for pages < 20 {
			page, err := r.ListAgents(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page.GetAgents() {
				names = append(names, a.GetOrigin())
			}
			pages++
			if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
				break
			}
		}
		if diff := cmp.Diff(source.names, names); diff != "" || pages != want {
			t.Errorf("of %d in %d pages, want %d (-want +got):\n%s", size, pages, want, diff)
		}
	}
	page, err := r.ListAgents(t.Context(), &writv1.ListAgentsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	token := page.GetNextPageToken()
	for name, request := range map[string]*writv1.ListAgentsRequest{
		"a token that was cut":     {PageToken: token[:len(token)-2]},
		"a token that was changed": {PageToken: "A" + token[1:]},
		"a token of nothing":       {PageToken: "x"},
		"a page that is too large": {PageSize: 201},
		"a page of less than none": {PageSize: -1},
	} {
		if _, err := r.ListAgents(t.Context(), request); !errors.Is(err, query.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
