// SPDX-License-Identifier: Apache-2.0

package export

import (
	"math"
	"strings"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxSubjects bounds how many decisions are remembered, twice.
const maxSubjects = 1 << 16

// subject is what an outcome has from its decision.
type subject struct {
	tool, tenant, workload, user, upstream, surface string

	roles  []string
	effect writv1.ToolEffect
}

// subjects are the newest decisions: the newer and the older half.
type subjects struct{ newer, older map[string]subject }

// of is the subject of a record: its own, or that of the decision it belongs to, where
// that is among the newest that were written.
func (s *subjects) of(r row) subject {
	id := r.Origin + "\x00" + r.DecisionID
	if r.decision == nil {
		if of, known := s.newer[id]; known {
			return of
		}
		of := s.older[id]
		of.tenant = r.Tenant
		return of
	}
	of := subject{
		tool: r.Tool, tenant: r.Tenant, workload: r.Workload, user: r.User, roles: r.Roles,
		upstream: r.decision.GetUpstream(), effect: r.decision.GetToolEffect(),
		surface: word(r.decision.GetSurface().String(), "SURFACE_"),
	}
	if len(s.newer) >= maxSubjects || s.newer == nil {
		s.newer, s.older = map[string]subject{}, s.newer
	}
	s.newer[id] = of
	return of
}

// word is the name of an enum's value in small letters, nothing for the zero.
func word(name, prefix string) string {
	out := strings.ToLower(strings.TrimPrefix(name, prefix))
	if out == "unspecified" {
		return ""
	}
	return out
}

// time is when the record says that it was written. One beyond what a time can be is the
// last one.
func (r row) time() time.Time {
	return time.Unix(0, int64(min(r.record.GetTimeUnixNs(), math.MaxInt64))).UTC() //nolint:gosec // bounded
}
