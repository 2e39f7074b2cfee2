// SPDX-License-Identifier: Apache-2.0

package toolservice_test

import (
	"context"
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func TestACallerIsToldWhatIsLeftForItAlone(t *testing.T) {
	t.Parallel()
	files := maps.Clone(mailFiles)
	files["budgets/all.yaml"] = `budgets:
  - {name: all_lookups, tools: [book.find], scopes: [BUDGET_SCOPE_TOOL], dimension: DIMENSION_CALLS, limit: 100, window: 86400s}
  - {name: of_session, tools: [book.find], scopes: [BUDGET_SCOPE_SESSION], dimension: DIMENSION_CALLS, limit: 3, endless: true}
  - {name: of_user, tools: [book.find], scopes: [BUDGET_SCOPE_TENANT, BUDGET_SCOPE_USER], dimension: DIMENSION_CALLS, limit: 9, window: 86400s}
`
	s := newStageOf(t, files, book, troupe{})
	balances := writv1.NewBudgetServiceClient(s.conn)
	token := s.begun("ann", "Write to Jane.").GetToken()
	if got := s.call(s.in("ann", token), "book.find", `{"name":"Jane"}`); got != "" {
		t.Fatalf("refused with %q", got)
	}
	told := func(ctx context.Context) string {
		t.Helper()
		response, err := balances.ListBalances(ctx, &writv1.ListBalancesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, b := range response.GetBalances() {
			all = append(all, b.GetBudget())
			if b.GetTaken() != 1 || b.GetLeft() != b.GetLimit()-1 {
				t.Errorf("%v", b)
			}
		}
		return strings.Join(all, " ")
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		want string
	}{
		"in the session":     {s.in("ann", token), "of_session of_user"},
		"outside":            {s.as("ann"), "of_user"},
		"in another session": {s.in("ann", s.begun("ann", "").GetToken()), "of_user"},
		"another user":       {s.as("bob"), ""},
	} {
		if got := told(c.ctx); got != c.want {
			t.Errorf("%s: told of %q, want %q", name, got, c.want)
		}
	}
	if _, err := balances.ListBalances(s.in("bob", token), &writv1.ListBalancesRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("another's session: %v", err)
	}
}
