// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// highestScore is the most that a risk score can be.
const highestScore = 100

// mostRiskRules bounds the risk rules and the bands on one tool, to what has room in
// a [writv1.RiskAssessment] and among a decision's checks.
const mostRiskRules = 64

// declaredScores is what a score begins with.
var declaredScores = map[writv1.Risk]int{
	writv1.Risk_RISK_LOW: 10, writv1.Risk_RISK_MEDIUM: 30, writv1.Risk_RISK_HIGH: 60,
}

// riskRule is a rule as it bears on one tool.
type riskRule struct {
	*writv1.RiskContribution
	condition *program
}

// band is what follows from a score.
type band struct {
	*writv1.RiskBand
	digest         [32]byte
	passed, failed *writv1.Check
}

func newBand(source *writv1.RiskBand) *band {
	out := &band{RiskBand: source, digest: digestOf(source), passed: passing("risk", source.GetName())}
	switch source.GetOnReach() {
	case writv1.OnFailure_ON_FAILURE_DENY:
		out.failed = failing("risk", source.GetName(), writv1.Reason_REASON_RISK_TOO_HIGH, "", "the call is too risky")
	case writv1.OnFailure_ON_FAILURE_NEEDS_APPROVAL:
		out.failed = failing("risk", source.GetName(), writv1.Reason_REASON_APPROVAL_REQUIRED, "", "a human must approve a call of this risk")
	}
	return out
}

// risk is what bears on the risk of one tool's calls: the rules in the order of their
// names, the bands in that of their thresholds.
type risk struct {
	rules []riskRule
	bands []*band
	// digest is of all rules: an approval that a score asked for is of them too.
	digest [32]byte
}

// risk scores the call, and does what the bands that the score reaches say. A decision
// under a bundle without risk rules holds no score.
func (e *evaluation) risk() {
	if !e.bundle.scores {
		return
	}
	e.assessment = e.assess()
	for _, band := range e.entry.risk.bands {
		reached := e.assessment.GetScore() >= band.GetAtLeast()
		if reached {
			e.assessment.Band, e.assessment.ReviewPerMille = band.GetName(), band.GetReviewPerMille()
		}
		switch {
		case band.failed == nil:
		case !reached:
			e.pass(band.passed)
		case band.GetOnReach() == writv1.OnFailure_ON_FAILURE_DENY:
			e.deny(band.failed)
		default:
			e.ask(band.failed)
		}
	}
}

// assess adds up the rules that hold. One that cannot be evaluated counts as what makes
// the call riskier.
func (e *evaluation) assess() *writv1.RiskAssessment {
	out := &writv1.RiskAssessment{Declared: e.declaredRisk()}
	score := declaredScores[out.GetDeclared()]
	for i := range e.entry.risk.rules {
		rule := &e.entry.risk.rules[i]
		if rule.condition != nil {
			holds := e.holds(rule.condition)
			if holds == no || holds == erred && rule.GetScore() < 0 {
				continue
			}
		}
		score += int(rule.GetScore())
		out.Contributions = append(out.Contributions, rule.RiskContribution)
	}
	out.Score = uint32(min(max(score, 0), highestScore)) //nolint:gosec // from 0 to 100
	return out
}

// declaredRisk returns the higher of the risks that the tool, and the contract of the
// run that the session is in, declare.
func (e *evaluation) declaredRisk() writv1.Risk {
	declared := e.entry.tool.Options.GetRisk()
	if run := e.facts.GetSession().GetRun(); run != nil && e.bundle.contracts[run.GetContract()] != nil {
		declared = max(declared, e.bundle.contracts[run.GetContract()].GetRisk())
	}
	return declared
}

// risks binds the risk rules and the bands to their tools.
func (b *builder) risks() {
	b.bundle.scores = len(b.source.RiskRules)+len(b.source.RiskBands) > 0
	for _, i := range inOrder(b.source.RiskRules) {
		source := b.source.RiskRules[i]
		contribution := &writv1.RiskContribution{Rule: source.GetName(), Score: source.GetScore()}
		for _, entry := range b.selected(source.GetTools()) {
			rule := riskRule{RiskContribution: contribution}
			if source.GetCondition() != "" {
				var ok bool
				if rule.condition, ok = b.compile(PartRiskRule, i, source.GetCondition(), entry); !ok {
					break
				}
			}
			entry.risk.rules = append(entry.risk.rules, rule)
			entry.risk.digest = chain(entry.risk.digest, digestOf(source))
			if len(entry.risk.rules) == mostRiskRules+1 {
				b.issue(PartRiskRule, i, "more than %d risk rules bear on %s", mostRiskRules, entry.tool.Name)
			}
		}
	}
	b.bands()
}

// bands binds the bands to their tools, and holds them against each other.
func (b *builder) bands() {
	order := inOrder(b.source.RiskBands)
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Compare(b.source.RiskBands[i].GetAtLeast(), b.source.RiskBands[j].GetAtLeast())
	})
	for _, i := range order {
		band := newBand(b.source.RiskBands[i])
		for _, entry := range b.selected(band.GetTools()) {
			if n := len(entry.risk.bands); n > 0 {
				b.rising(i, entry, entry.risk.bands[n-1], band)
			}
			entry.risk.bands = append(entry.risk.bands, band)
			if len(entry.risk.bands) == mostRiskRules+1 {
				b.issue(PartRiskBand, i, "more than %d bands bear on %s", mostRiskRules, entry.tool.Name)
			}
		}
	}
}

// rising says what is wrong with two bands on a tool of which one comes next above the
// other.
func (b *builder) rising(i int, entry *entry, below, above *band) {
	switch {
	case below.GetAtLeast() == above.GetAtLeast():
		b.issue(PartRiskBand, i, "%s and %s both begin at %d, and both bear on %s; make them one",
			below.GetName(), above.GetName(), above.GetAtLeast(), entry.tool.Name)
	case below.GetReviewPerMille() > above.GetReviewPerMille():
		b.issue(PartRiskBand, i, "riskier calls of %s would be reviewed less often: %d of a thousand in %s, %d in %s",
			entry.tool.Name, below.GetReviewPerMille(), below.GetName(), above.GetReviewPerMille(), above.GetName())
	}
}
