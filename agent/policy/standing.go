// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/budgets"
	"github.com/writ-dev/writ/state/leases"
)

// Standings returns how the bundle's balances stand at the time now, in the order of
// their names. Balances of budgets that the bundle does not have, or
// of windows that are past, are left out.
func (b *Bundle) Standings(m *budgets.Machine, shares *leases.Shares, now time.Time) []*writv1.BudgetStanding {
	var out []*writv1.BudgetStanding
	for _, held := range m.Held() {
		budget := b.budgets[held.GetBudget()]
		if budget == nil || budget.shared != nil || budget.dimension != held.GetDimension() || len(budget.scopes) != len(held.GetKey()) ||
			budget.window.Rolling() != held.GetRolling().AsDuration() {
			continue
		}
		if standing := budget.standing(m, held.GetKey(), now); standing.GetTaken() > 0 {
			out = append(out, standing)
		}
	}
	out = append(out, b.leased(m, shares, now)...)
	slices.SortStableFunc(out, func(a, b *writv1.BudgetStanding) int {
		return cmp.Or(cmp.Compare(a.GetBudget(), b.GetBudget()), slices.Compare(a.GetKey(), b.GetKey()))
	})
	return out
}

// OwnStandings returns those of [Bundle.Standings] that are kept by the principal, or by
// its session and the run in it: of others, and of what all share, nobody is told.
func (b *Bundle) OwnStandings(m *budgets.Machine, shares *leases.Shares, who *writv1.Principal, session *writv1.SessionSummary, now time.Time) []*writv1.BudgetStanding {
	return slices.DeleteFunc(b.Standings(m, shares, now), func(s *writv1.BudgetStanding) bool {
		return !b.budgets[s.GetBudget()].own(s.GetKey(), who, session)
	})
}

// own says whether a balance is kept by the principal or its session in each part of its
// key that names somebody, of which there must be one.
func (b *budget) own(scope []string, who *writv1.Principal, session *writv1.SessionSummary) bool {
	mine := b.key(who, "", session).Scope
	named := false
	for i, s := range b.scopes {
		switch s {
		case writv1.BudgetScope_BUDGET_SCOPE_TOOL, writv1.BudgetScope_BUDGET_SCOPE_WORKFLOW, writv1.BudgetScope_BUDGET_SCOPE_FEATURE:
			continue
		}
		// Whoever has no user, session or run shares the balance with others like it.
		nobody := scope[i] == "" && s != writv1.BudgetScope_BUDGET_SCOPE_TENANT
		if named = true; mine[i] != scope[i] || nobody {
			return false
		}
	}
	return named
}

// leased returns how the agent's slices of shared budgets stand, in windows that have not
// ended.
func (b *Bundle) leased(m *budgets.Machine, shares *leases.Shares, now time.Time) []*writv1.BudgetStanding {
	var out []*writv1.BudgetStanding
	for _, held := range shares.Held() {
		budget := b.budgets[held.GetBudget()]
		if budget == nil || budget.shared == nil || budget.dimension != held.GetDimension() || len(budget.scopes) != len(held.GetKey()) ||
			!now.Before(held.GetWindowEnd().AsTime()) {
			continue
		}
		key := budgets.Key{Budget: budget.name, Scope: held.GetKey(), Dimension: budget.dimension}
		taken, _ := m.Taken(key, held.GetWindowStart().AsTime())
		most := max(0, held.GetCap()-held.GetLost())
		out = append(out, &writv1.BudgetStanding{
			Budget: budget.name, Scopes: budget.scopes, Key: held.GetKey(), Dimension: budget.dimension, Limit: budget.limit,
			Taken: taken, Left: max(0, most-taken), Leased: &most, Cap: writv1.BudgetCap_BUDGET_CAP_HARD, RefillTime: held.GetWindowEnd(),
		})
	}
	return out
}

func (b *budget) standing(m *budgets.Machine, scope []string, now time.Time) *writv1.BudgetStanding {
	key := budgets.Key{Budget: b.name, Scope: scope, Dimension: b.dimension, Window: b.window}
	read, _ := m.Read(now, []budgets.Key{key})
	standing := &writv1.BudgetStanding{
		Budget: b.name, Scopes: b.scopes, Key: scope, Dimension: b.dimension, Limit: b.limit,
		Taken: read[0].GetTaken(), Left: max(0, b.limit-read[0].GetTaken()), Cap: writv1.BudgetCap_BUDGET_CAP_HARD,
	}
	if b.soft {
		standing.Cap = writv1.BudgetCap_BUDGET_CAP_SOFT
	}
	switch {
	case b.window.Rolling() > 0:
		// When less than this is taken the first of it has come back.
		key.Room = max(0, standing.GetTaken()-1)
		read, _ = m.Read(now, []budgets.Key{key})
		standing.RefillTime = read[0].GetRoomTime()
	case !b.window.Endless():
		standing.RefillTime = timestamppb.New(b.window.End(read[0].GetWindowStart().AsTime()))
	}
	return standing
}
