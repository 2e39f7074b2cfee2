// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// What a grant names among its tools to let principals attest it (SEMANTICS 9). A
// wildcard never means these.
const (
	// AttestUser lets a principal say what its user asked for.
	AttestUser = "provenance.attest_user"
	// AttestTool lets a principal say what a tool returned that it ran itself.
	AttestTool = "provenance.attest_tool"
)

// attests notes a grant that names what may be attested. It has no condition: there
// is no call to evaluate it over.
func (b *builder) attests(index int, g *grant) {
	for _, what := range []string{AttestUser, AttestTool} {
		source := b.source.Grants[index]
		if !slices.Contains(source.GetTools(), what) {
			continue
		}
		if source.GetCondition() != "" {
			b.issue(PartGrant, index, "a grant of %s has no condition: there is no call to evaluate it over", what)
		}
		if b.bundle.attesting == nil {
			b.bundle.attesting = make(map[string][]*grant)
		}
		b.bundle.attesting[what] = append(b.bundle.attesting[what], g)
	}
}

// MayAttest says whether a principal may attest [AttestUser] or [AttestTool]: some
// grant allows it and none denies it.
func (b *Bundle) MayAttest(who *writv1.Principal, what string) bool {
	allowed := false
	for _, g := range b.attesting[what] {
		if !g.selector.matches(who) {
			continue
		}
		if g.effect == writv1.GrantEffect_GRANT_EFFECT_DENY {
			return false
		}
		allowed = true
	}
	return allowed
}
