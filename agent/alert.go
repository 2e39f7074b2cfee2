// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// watch gives the alerts that a decision gives rise to, once it is recorded. An alert
// holds nothing up: it is recorded when the ledger comes to it.
func (a *Agent) watch(ad *Admission) {
	if ad.bundle == nil || ad.origin != writv1.DecisionOrigin_DECISION_ORIGIN_DECIDE || !ad.position.Recorded {
		return
	}
	a.raise(ad, ad.bundle.Alerts(&ad.call, ad.result, ad.facts))
}

// overrun counts what a call took beyond its worst case, and gives the alerts.
func (a *Agent) overrun(ad *Admission, overrun []*writv1.Reserve) {
	if len(overrun) == 0 {
		return
	}
	for _, r := range overrun {
		a.options.Metrics.overrun(r.GetBudget())
	}
	a.raise(ad, ad.bundle.Overruns(&ad.call, overrun, a.options.Clock()))
}

// raise records alerts that were not given before in their windows.
func (a *Agent) raise(ad *Admission, alerts []policy.Alert) {
	for _, alert := range alerts {
		record := alert.Record
		name := fmt.Sprintf("%d %d %q %q", record.GetKind(), record.GetPercent(), record.GetBudget(), record.GetKey())
		if !a.begin(name) {
			continue
		}
		if a.given(alert) {
			a.end(name)
			continue
		}
		entry := ledger.Entry{
			Kind: writv1.RecordKind_RECORD_KIND_ALERT, Tenant: ad.request.Principal.GetTenant(), DecisionID: ad.id[:],
			BundleDigest: a.bundleDigest(), Body: record,
			Written: func(err error) { a.raised(name, record, err) },
		}
		if err := a.options.Ledger.AppendAsync(context.Background(), entry); err != nil {
			a.raised(name, record, err)
		}
	}
}

// begin says whether an alert is not on its way already, and notes that it is.
func (a *Agent) begin(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.alerting[name] {
		return false
	}
	a.alerting[name] = true
	return true
}

func (a *Agent) end(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.alerting, name)
}

// given says whether an alert was given already in the window of its balance.
func (a *Agent) given(alert policy.Alert) bool {
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	record := alert.Record
	return a.state.budgets.Alerted(record.GetTime().AsTime(), alert.Key, record.GetKind(), record.GetPercent())
}

// raised hears what became of an alert's record. One that was not written is given
// with the next call that gives rise to it.
func (a *Agent) raised(name string, record *writv1.AlertRecord, err error) {
	if err == nil {
		a.state.alert(record)
	}
	a.end(name)
	if err != nil {
		a.options.Log.Error("an alert was not recorded", "kind", record.GetKind().String(), "budget", record.GetBudget(), "error", err)
		return
	}
	a.options.Metrics.alert(record)
	if a.options.Alert != nil {
		a.options.Alert(record)
	}
}

// alert applies an alert that is recorded.
func (s *State) alert(record *writv1.AlertRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgets.Alert(record)
}
