// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// selector says whom a grant speaks of. Every list that is not empty must match;
// lists are sorted.
type selector struct {
	workloads []string
	// below has the entries that end with "/*", without the star.
	below   []string
	users   []string
	roles   []string
	tenants []string
}

func newSelector(s *writv1.PrincipalSelector) *selector {
	out := &selector{
		users:   sorted(s.GetUsers()),
		roles:   sorted(s.GetRoles()),
		tenants: sorted(s.GetTenants()),
	}
	for _, workload := range sorted(s.GetWorkloads()) {
		if prefix, ok := strings.CutSuffix(workload, "*"); ok && strings.HasSuffix(prefix, "/") {
			out.below = append(out.below, prefix)
			continue
		}
		out.workloads = append(out.workloads, workload)
	}
	return out
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// matches says whether the selector speaks of who.
func (s *selector) matches(who *writv1.Principal) bool {
	return s.matchesWorkload(who.GetWorkload()) &&
		admits(s.users, who.GetUser()) &&
		admits(s.tenants, who.GetTenant()) &&
		(len(s.roles) == 0 || slices.ContainsFunc(who.GetRoles(), func(role string) bool { return admits(s.roles, role) }))
}

func (s *selector) matchesWorkload(workload string) bool {
	if len(s.workloads)+len(s.below) == 0 {
		return true
	}
	if _, ok := slices.BinarySearch(s.workloads, workload); ok {
		return true
	}
	for i := range len(workload) {
		if workload[i] != '/' || i+1 == len(workload) {
			continue
		}
		if _, ok := slices.BinarySearch(s.below, workload[:i+1]); ok {
			return true
		}
	}
	return false
}

// admits says whether a sorted list is empty or has the value.
func admits(list []string, value string) bool {
	if len(list) == 0 {
		return true
	}
	_, ok := slices.BinarySearch(list, value)
	return ok
}

// dimension is a part of a principal that grants are indexed by.
type dimension int

const (
	byUser dimension = iota
	byWorkload
	byBelow
	byTenant
	byRole
	dimensions
)

// keys returns the lists of a selector by dimension. Workloads fill two of them,
// since one list may hold both forms.
func (s *selector) keys() [dimensions][]string {
	return [dimensions][]string{
		byUser: s.users, byWorkload: s.workloads, byBelow: s.below, byTenant: s.tenants, byRole: s.roles,
	}
}

// index finds the grants on one tool that may speak of a principal without
// looking at the others. Each grant stands in the lists of one of its parts, the
// most selective among this tool's grants, or in everyone.
type index struct {
	by       [dimensions]map[string][]*bound
	everyone []*bound
}

// bound is a grant on one tool, with its condition compiled for the tool's
// request; condition is nil when there is none.
type bound struct {
	grant     *grant
	condition *program
}

// newIndex indexes grants, which are in their order.
func newIndex(grants []*bound) *index {
	counts := countKeys(grants)
	x := &index{}
	for _, b := range grants {
		best := selective(b.grant.selector, &counts)
		if len(best) == 0 {
			x.everyone = append(x.everyone, b)
			continue
		}
		for _, d := range best {
			x.add(d, b.grant.selector.keys()[d], b)
		}
	}
	return x
}

func (x *index) add(d dimension, keys []string, b *bound) {
	if x.by[d] == nil {
		x.by[d] = make(map[string][]*bound)
	}
	for _, key := range keys {
		x.by[d][key] = append(x.by[d][key], b)
	}
}

// countKeys counts, for each key of each dimension, the grants that name it.
func countKeys(grants []*bound) [dimensions]map[string]int {
	var counts [dimensions]map[string]int
	for d := range counts {
		counts[d] = make(map[string]int)
	}
	for _, b := range grants {
		for d, keys := range b.grant.selector.keys() {
			for _, key := range keys {
				counts[d][key]++
			}
		}
	}
	return counts
}

// selective returns the dimensions under which a grant is indexed: those of the
// part whose most crowded key has the fewest grants. None means everyone.
func selective(s *selector, counts *[dimensions]map[string]int) []dimension {
	keys := s.keys()
	var best []dimension
	fewest := 0
	for _, part := range [...][]dimension{{byUser}, {byWorkload, byBelow}, {byTenant}, {byRole}} {
		crowd := 0
		for _, d := range part {
			for _, key := range keys[d] {
				crowd = max(crowd, counts[d][key])
			}
		}
		if crowd > 0 && (best == nil || crowd < fewest) {
			best, fewest = part, crowd
		}
	}
	return best
}

// match is a grant that speaks of the principal, with how its condition came out.
type match struct {
	*bound
	outcome truth
}

// find appends the grants that speak of who, in their order, each once.
func (x *index) find(who *writv1.Principal, found []match) []match {
	found = keep(found, x.everyone, who)
	found = keep(found, x.by[byUser][who.GetUser()], who)
	found = keep(found, x.by[byTenant][who.GetTenant()], who)
	for _, role := range who.GetRoles() {
		found = keep(found, x.by[byRole][role], who)
	}
	workload := who.GetWorkload()
	found = keep(found, x.by[byWorkload][workload], who)
	if len(x.by[byBelow]) > 0 {
		for i := range len(workload) {
			if workload[i] == '/' {
				found = keep(found, x.by[byBelow][workload[:i+1]], who)
			}
		}
	}
	if len(found) > 1 {
		slices.SortFunc(found, func(a, b match) int { return a.grant.order - b.grant.order })
		found = slices.CompactFunc(found, func(a, b match) bool { return a.bound == b.bound })
	}
	return found
}

func keep(found []match, candidates []*bound, who *writv1.Principal) []match {
	for _, b := range candidates {
		if b.grant.selector.matches(who) {
			found = append(found, match{bound: b})
		}
	}
	return found
}
