// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// reading is what somebody asks for, by method.
var reading = map[string]func(context.Context, *testing.T, *hall, string) error{
	"/writ.v1.RecordService/ListRecords": func(ctx context.Context, t *testing.T, h *hall, who string) error {
		_, err := h.as(t, who).ListRecords(ctx, &writv1.ListRecordsRequest{PageSize: 2, Filter: &writv1.RecordFilter{Tenant: "acme"}})
		return err
	},
	"/writ.v1.RecordService/GetRecord": func(ctx context.Context, t *testing.T, h *hall, who string) error {
		_, err := h.as(t, who).GetRecord(ctx, &writv1.GetRecordRequest{DecisionId: strings.Repeat("0", 31) + "1"})
		return err
	},
	"/writ.v1.RecordService/WatchRecords": func(ctx context.Context, t *testing.T, h *hall, who string) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		watch, err := h.as(t, who).WatchRecords(ctx, &writv1.WatchRecordsRequest{Filter: &writv1.RecordFilter{Tenant: "acme"}})
		if err != nil {
			return err
		}
		if md, err := watch.Header(); err == nil && md != nil {
			return nil // the place is taken
		}
		_, err = watch.Recv()
		return err
	},
	"/writ.v1.AgentService/ListAgents": func(ctx context.Context, t *testing.T, h *hall, who string) error {
		_, err := writv1.NewAgentServiceClient(h.dial(t, who)).ListAgents(ctx, &writv1.ListAgentsRequest{PageSize: 2})
		return err
	},
	"/writ.v1.AgentService/GetAgent": func(ctx context.Context, t *testing.T, h *hall, who string) error {
		_, err := writv1.NewAgentServiceClient(h.dial(t, who)).GetAgent(ctx, &writv1.GetAgentRequest{Origin: "nobody"})
		if status.Code(err) == codes.NotFound {
			return nil // it was looked for
		}
		return err
	},
}

// asked are the requests of reading as they are recorded.
var asked = map[string]string{
	"/writ.v1.RecordService/ListRecords":  `{"filter":{"tenant":"acme"},"page_size":2}`,
	"/writ.v1.RecordService/GetRecord":    `{"decision_id":"00000000000000000000000000000001"}`,
	"/writ.v1.RecordService/WatchRecords": `{"filter":{"tenant":"acme"}}`,
	"/writ.v1.AgentService/ListAgents":    `{"page_size":2}`,
	"/writ.v1.AgentService/GetAgent":      `{"origin":"nobody"}`,
}

func TestEachReadByAReaderIsRecordedAndNoRoleReadsMoreThanItMay(t *testing.T) {
	t.Parallel()
	_, h := openReaders(t)
	records := []string{"/writ.v1.RecordService/ListRecords", "/writ.v1.RecordService/GetRecord", "/writ.v1.RecordService/WatchRecords"}
	agents := []string{"/writ.v1.AgentService/ListAgents", "/writ.v1.AgentService/GetAgent"}
	for who, c := range map[string]struct{ may, tenants []string }{
		auditor:  {records, []string{"*"}},
		ofAcme:   {records, []string{"acme"}},
		ofBoth:   {records, []string{"acme", "globex"}},
		operator: {agents, []string{"*"}},
		chief:    {append(slices.Clone(records), agents...), []string{"*"}},
		acmeDesk: {},
		agent:    {},
		"":       {},
	} {
		for method, read := range reading {
			err := read(t.Context(), t, h, who)
			var want []*writv1.ReadRecord
			code := codes.PermissionDenied
			if slices.Contains(c.may, method) {
				code = codes.OK
				want = []*writv1.ReadRecord{{Reader: who, Tenants: c.tenants, Method: method, Request: asked[method]}}
			}
			if status.Code(err) != code {
				t.Errorf("%s as %q: %v, want %s", method, who, err, code)
			}
			if diff := cmp.Diff(want, h.recorded(), protocmp.Transform()); diff != "" {
				t.Errorf("%s as %q is recorded otherwise (-want +got):\n%s", method, who, diff)
			}
		}
	}
}

func TestWhatCannotBeRecordedIsNotRead(t *testing.T) {
	t.Parallel()
	_, h := openReaders(t)
	h.setFull(true)
	for method, read := range reading {
		if err := read(t.Context(), t, h, chief); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "cannot be recorded") {
			t.Errorf("%s: %v, want UNAVAILABLE", method, err)
		}
	}
	h.setFull(false)
	long := &writv1.ListRecordsRequest{PageToken: strings.Repeat("x", 40<<10)}
	if _, err := h.as(t, chief).ListRecords(t.Context(), long); status.Code(err) != codes.InvalidArgument || len(h.recorded()) != 0 {
		t.Errorf("a request that is too large to be recorded: %v", err)
	}
}
